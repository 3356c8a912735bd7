"""The deployments of a service: gateways, and for each model the replicas of its text and its image tower."""

from collections.abc import Mapping, Sequence
from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
from ray.serve.schema import LoggingConfig

from raylens.registry import Version
from raylens.serve.config import ModelConfig, ServeSettings, ServiceConfig, TowerConfig
from raylens.serve.deploy.environment import actor_options
from raylens.serve.messages import Tower

__all__ = ["LOGGING", "build_application"]

LOGGING = LoggingConfig(log_level="INFO", enable_access_log=False)
GATEWAY = "raylens.serve.gateway.ingress.Ingress"
REPLICA = "raylens.serve.replica.replica.EncoderReplica"
"""Classes by name: only the processes that run them import them, and with them torch."""
POLICY = "raylens.serve.deploy.autoscale:replicas_for_items"
SURGE_PERCENT = 25
"""Percentage of a deployment's replicas, and at least one, that an update in place starts in addition."""


def build_application(
    config: ServiceConfig,
    registry: str,
    versions: Sequence[Version],
    selector: Mapping[str, str] | None = None,
    inherited: Mapping[str, str] | None = None,
) -> serve.Application:
    """Return the application: all deployments, bound to each other.

    Args:
        config: the settings of the service.
        registry: URI of the registry, made absolute.
        versions: the version that each model begins with.
        selector: labels of the nodes that may run them; any node by default.
        inherited: variables that Ray was started with; see `raylens.serve.deploy.environment.actor_options`.
    """
    actor = actor_options(config, inherited or {})
    if selector:
        actor["label_selector"] = dict(selector)
    handles = [
        _tower(config, model, tower, registry, version, actor)
        for model, version in zip(config.models, versions, strict=True)
        for tower in ("text", "image")
    ]
    references = [
        model.model if model.alias else str(version) for model, version in zip(config.models, versions, strict=True)
    ]
    # A gateway waits more than it computes, so it reserves nothing, like Ray Serve's own proxy.
    gateway = serve.deployment(name="Gateway", **_common(config.limits))(GATEWAY).options(
        num_replicas=config.gateways,
        ray_actor_options={"num_cpus": 0, **actor},
    )
    return gateway.bind(references, config.limits, config.security, *handles)


def _tower(
    config: ServiceConfig, model: ModelConfig, tower: Tower, registry: str, version: Version, actor: Mapping[str, Any]
) -> serve.Application:
    own: TowerConfig = getattr(model, tower)
    deployment = serve.deployment(name=f"{version.name}-{tower}", **_common(config.limits))(REPLICA).options(
        ray_actor_options={"num_cpus": own.cpus, "num_gpus": own.gpus, **actor},
        health_check_period_s=15,
        health_check_timeout_s=60,
        **_replicas(own),
    )
    return deployment.bind(
        registry,
        str(version),
        config.limits,
        follow=model.model if model.alias and model.follow else None,
        towers=(tower,),
        precision=model.precision,
        cpus=own.cpus,
        device="cuda" if own.gpus else "cpu",
    )


def _replicas(own: TowerConfig) -> dict[str, Any]:
    if own.min_replicas == own.max_replicas:
        return {"num_replicas": own.min_replicas}
    return {
        "autoscaling_config": AutoscalingConfig(
            min_replicas=own.min_replicas,
            max_replicas=own.max_replicas,
            target_ongoing_requests=own.items_per_replica,
            look_back_period_s=own.look_back_s,
            upscale_delay_s=own.upscale_delay_s,
            downscale_delay_s=own.downscale_delay_s,
            policy=AutoscalingPolicy(policy_function=POLICY),
        )
    }


def _common(limits: ServeSettings) -> dict[str, Any]:
    return {
        "max_ongoing_requests": limits.max_ongoing_requests,
        "max_queued_requests": limits.max_queued_requests,
        "backpressure_config": {"retry_after_s": 1},
        "graceful_shutdown_timeout_s": limits.drain_timeout_s,
        "graceful_shutdown_wait_loop_s": 0.5,
        # When a service is updated in place, a new replica is up before an old one stops.
        "max_surge_percent": SURGE_PERCENT,
        # One retry helps against a store that did not answer; a damaged bundle stays damaged.
        "max_constructor_retry_count": 2,
        "logging_config": LOGGING,
    }
