"""The deployments of a service: gateways, and for each model the replicas of its text and its image tower."""

from collections.abc import Mapping, Sequence
from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
from ray.serve.schema import LoggingConfig

from raylens.registry import Version
from raylens.serve.gateway import Gateway
from raylens.serve.messages import Tower
from raylens.serve.replica import EncoderReplica
from raylens.serve.service import ModelConfig, ServiceConfig, TowerConfig
from raylens.serve.settings import ServeSettings

__all__ = ["LOGGING", "application", "environment"]

LOGGING = LoggingConfig(log_level="INFO", enable_access_log=False)
POLICY = "raylens.serve.autoscale:replicas_for_items"
METRICS_SECONDS = "1"
SURGE_PERCENT = 25
"""Of a deployment's replicas, and one at least."""


def environment(config: ServiceConfig) -> dict[str, str]:
    """Of the service's processes, Ray Serve's own among them.

    Its log goes to files alone, ``<session>/logs/serve/``. Replicas report their load every second: by default every
    ten, which would be most of the time that a step in the load waits for its replicas. A gateway that leaves waits
    two seconds for the proxies to hear of it, and not thirty.

    Each process has one event loop for Ray Serve and for us, and they call each other by gRPC: a third less processor
    time a request. What would hold a loop for long is done in threads: images are decoded, texts tokenised and towers
    computed there in a replica, and large answers are encoded there in a gateway.
    """
    return {
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
        "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
        "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(2**31 - 1),  # the API's limit on bodies bounds messages
        "RAY_SERVE_LOG_TO_STDERR": "0",
        # Of three: on a busy machine five seconds are too few for a process to start, and it would be started for ever.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
        "RAY_SERVE_ENABLE_HA_PROXY": "1" if config.proxy == "haproxy" else "0",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
        "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": METRICS_SECONDS,
    }


def application(
    config: ServiceConfig, registry: str, versions: Sequence[Version], selector: Mapping[str, str] | None = None
) -> serve.Application:
    """All of them, bound to each other.

    Args:
        config: the service.
        registry: its registry's URI, made absolute.
        versions: which version each model begins with.
        selector: labels of the nodes that they are on; any node by default.
    """
    actor: dict[str, Any] = {"runtime_env": {"env_vars": environment(config)}}
    if selector:
        actor["label_selector"] = dict(selector)
    handles = [
        _tower(config, one, tower, registry, version, actor)
        for one, version in zip(config.models, versions, strict=True)
        for tower in ("text", "image")
    ]
    references = [
        one.model if one.alias else str(version) for one, version in zip(config.models, versions, strict=True)
    ]
    # It waits more than it computes, so it reserves nothing, like Ray Serve's own proxy.
    gateway = serve.deployment(serve.ingress()(Gateway), **_common(config.limits)).options(
        name="Gateway",
        num_replicas=config.gateways,
        ray_actor_options={"num_cpus": 0, **actor},
    )
    return gateway.bind(references, config.limits, config.security, *handles)


def _tower(
    config: ServiceConfig, model: ModelConfig, tower: Tower, registry: str, version: Version, actor: Mapping[str, Any]
) -> serve.Application:
    own: TowerConfig = getattr(model, tower)
    deployment = serve.deployment(EncoderReplica, **_common(config.limits)).options(
        name=f"{version.name}-{tower}",
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
        # A new one is there before an old one goes, when a service is deployed again in place.
        "max_surge_percent": SURGE_PERCENT,
        # Once more, for a store that did not answer; a damaged bundle does not mend.
        "max_constructor_retry_count": 2,
        "logging_config": LOGGING,
    }
