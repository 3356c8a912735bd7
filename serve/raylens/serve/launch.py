"""From a registry reference to a service that answers, or to an error that says why it does not."""

import logging
from types import TracebackType
from typing import Any, Self

import ray
from ray import serve
from ray.serve.schema import LoggingConfig

from raylens.registry import Registry, Version
from raylens.serve.checks import check_port, check_ray
from raylens.serve.gateway import Gateway
from raylens.serve.replica import EncoderReplica
from raylens.serve.settings import ServeSettings
from raylens.serve.stop import stop
from raylens.serve.watch import base_url, wait_until_ready

__all__ = ["RunningService", "serve_model"]

APP = "raylens"
# Ray Serve's processes then log to files alone: <session>/logs/serve/.
QUIET = {"env_vars": {"RAY_SERVE_LOG_TO_STDERR": "0"}}
LOGGING = LoggingConfig(log_level="INFO", enable_access_log=False)


class RunningService:
    """An embedding API that answers. Leaving its ``with`` block shuts it down."""

    def __init__(self, host: str, port: int, model: Version) -> None:
        self._address = (host, port)
        self._running = True
        self.url = base_url(host, port)
        self.model = model

    def shutdown(self) -> None:
        """Let begun requests finish, stop Ray Serve, and return when the port is free. A second call does nothing.

        Raises:
            ServingError: something is left, on the cluster or at the port.
        """
        if self._running and ray.is_initialized():  # without Ray, the service has ended with it
            stop(APP, *self._address)
            self._running = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()


def serve_model(
    *,
    registry: str,
    reference: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    replicas: int = 1,
    cpus_per_replica: float = 1,
    settings: ServeSettings | None = None,
) -> RunningService:
    """Serve a model on the Ray that this process is connected to, and return when it is ready.

    Args:
        registry: URI of the registry; every machine of the cluster must reach it.
        reference: ``name``, ``name@3`` or ``name@alias``; resolved once, so that all replicas serve one version.
        host: where to listen; ``0.0.0.0`` is every interface of this machine. There is no authentication.
        port: where to listen.
        replicas: processes that hold the model.
        cpus_per_replica: what each reserves, and the threads that it computes with.
        settings: limits and batching.

    Raises:
        NotFoundError: the registry has no such model.
        ServingError: Ray is not there or too small, the port is taken, or a replica fails to start.
    """
    settings = settings or ServeSettings()
    check_ray(replicas, cpus_per_replica)
    models = Registry(registry)
    version = models.resolve(reference)
    check_port(host, port)
    app = _application(models.store.uri, version, replicas, cpus_per_replica, settings)
    service = RunningService(host, port, version)
    try:
        _deploy(app, host, port, settings)
        wait_until_ready(service.url, APP, settings.startup_timeout_s)
    except BaseException:  # an interrupt as well must not leave half a service behind
        service.shutdown()
        raise
    return service


def _application(
    registry: str, version: Version, replicas: int, cpus_per_replica: float, settings: ServeSettings
) -> serve.Application:
    common: dict[str, Any] = {
        "max_ongoing_requests": settings.max_ongoing_requests,
        "max_queued_requests": settings.max_queued_requests,
        "backpressure_config": {"retry_after_s": 1},
        "graceful_shutdown_timeout_s": settings.drain_timeout_s,
        "graceful_shutdown_wait_loop_s": 0.5,
        # Once more, for a store that did not answer; a damaged bundle does not mend.
        "max_constructor_retry_count": 2,
        "logging_config": LOGGING,
    }
    encoders = serve.deployment(EncoderReplica, **common).options(
        num_replicas=replicas, ray_actor_options={"num_cpus": cpus_per_replica, "runtime_env": QUIET}
    )
    # It waits more than it computes, so it reserves nothing, like Ray Serve's own proxy.
    gateway = serve.deployment(serve.ingress()(Gateway), **common).options(
        name="Gateway", ray_actor_options={"num_cpus": 0, "runtime_env": QUIET}
    )
    replica = encoders.bind(registry, str(version), settings, cpus_per_replica)
    return gateway.bind(replica, settings)


def _deploy(app: serve.Application, host: str, port: int, settings: ServeSettings) -> None:
    # This process's own messages: "Started Serve in namespace ...", "Application 'raylens' is ready ...".
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    serve.start(
        proxy_location="HeadOnly",
        # Longer than the gateway's own limit, whose answer is in the API's error form.
        http_options={"host": host, "port": port, "request_timeout_s": settings.request_timeout_s + 5},
        logging_config=LOGGING,
        controller_options={"runtime_env": QUIET},
    )
    serve.run_many([serve.RunTarget(app, name=APP)], wait_for_applications_running=False)
