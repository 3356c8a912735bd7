"""Starting and stopping a service on Ray Serve; an error says why it does not start."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import ray
from ray import serve

from raylens.capacity import placement
from raylens.config import validated
from raylens.errors import ServingError
from raylens.registry import Registry, Version
from raylens.serve.config import Precision, ServeSettings, ServiceConfig
from raylens.serve.deploy.checks import check_port, check_ray
from raylens.serve.deploy.deployments import LOGGING, build_application
from raylens.serve.deploy.environment import actor_options
from raylens.serve.deploy.startup import base_url, wait_until_ready
from raylens.serve.gateway.keys import KeyRing

__all__ = ["RunningService", "serve_model", "serve_service", "stop"]

APP = "raylens"
POLL_S = 0.1
STOP_TIMEOUT_S = 30.0
CONTROLLER = {"name": "SERVE_CONTROLLER_ACTOR", "namespace": "serve"}
CONTROLLER_POLL_S = 0.02


class RunningService:
    """An embedding service that is ready. Leaving its ``with`` block shuts it down."""

    def __init__(self, host: str, port: int, versions: Sequence[Version]) -> None:
        self._address = (host, port)
        self._running = True
        self.url = base_url(host, port)
        self.versions = tuple(versions)
        """The version that each model began with."""

    @property
    def model(self) -> Version:
        """The version that the first model began with."""
        return self.versions[0]

    def shutdown(self) -> None:
        """Let begun requests finish, stop Ray Serve, and return when the port is free. A second call does nothing.

        Raises:
            ServingError: Ray Serve still runs, or the port is still held.
        """
        if self._running and ray.is_initialized():  # without Ray, the service has already ended
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
    precision: Precision = "auto",
    settings: ServeSettings | None = None,
    inherited: Mapping[str, str] | None = None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> RunningService:
    """Serve one model without keys; see `serve_service`, which this calls with a small configuration.

    Args:
        registry: URI of the registry; every machine of the cluster must reach it.
        reference: ``name``, ``name@3`` or ``name@alias``; an alias is followed.
        host: where to listen; ``0.0.0.0`` is every interface of this machine.
        port: where to listen.
        replicas: number of replicas of each tower.
        cpus_per_replica: CPUs that each replica reserves and computes on.
        precision: precision of the towers; see `raylens.serve.replica.precision.apply_precision`.
        settings: limits and batching.
        inherited, on_progress: see `serve_service`.

    Raises:
        ConfigError: a value is out of range.
        NotFoundError, ServingError: see `serve_service`.
    """
    tower = {"min_replicas": replicas, "max_replicas": replicas, "cpus": cpus_per_replica}
    tree = {
        "models": [{"model": reference, "precision": precision, "text": tower, "image": tower}],
        "registry": registry,
        "host": host,
        "port": port,
        "limits": (settings or ServeSettings()).model_dump(),
    }
    return serve_service(validated(ServiceConfig, tree), inherited=inherited, on_progress=on_progress)


def serve_service(
    config: ServiceConfig,
    *,
    inherited: Mapping[str, str] | None = None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> RunningService:
    """Serve models on the Ray that this process is connected to, and return when all of them embed.

    Args:
        config: the settings of the service.
        inherited: variables that Ray was started with; see `raylens.serve.deploy.environment.actor_options`.
        on_progress: called with lines that report the progress.

    Raises:
        ConfigError: the file of keys cannot be read.
        NotFoundError: the registry has no such model.
        ServingError: Ray does not run or is too small, the port is taken, or a replica fails to start.
    """
    check_ray(config)
    config = config.with_absolute_paths()
    models = Registry(config.registry)
    versions = [models.resolve(model.model) for model in config.models]
    check_port(config.host, config.port)
    if config.security.keys:
        KeyRing(config.security.keys)  # so that a mistake in it is reported before anything starts
    app = build_application(config, models.store.uri, versions, placement().selector("serve"), inherited)
    service = RunningService(config.host, config.port, versions)
    try:
        on_progress("starting Ray Serve, and the replicas of " + ", ".join(map(str, versions)))
        _deploy(app, config, inherited or {})
        wait_until_ready(service.url, APP, config.limits.startup_timeout_s, on_progress)
    except BaseException:  # not even an interrupt may leave half a service behind
        service.shutdown()
        raise
    return service


def _deploy(app: serve.Application, config: ServiceConfig, inherited: Mapping[str, str]) -> None:
    """Start Ray Serve with its proxies, and the replicas meanwhile: `serve.start` returns when proxies are ready."""
    # It silences messages such as "Started Serve in namespace ...", "Application 'raylens' is ready ...".
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    pool = ThreadPoolExecutor(1, thread_name_prefix="raylens-serve-start")
    started = pool.submit(_start, config, inherited)
    try:
        # Without a controller, `serve.run_many` would start one with its own settings.
        _wait_for_controller(started)
        serve.run_many([serve.RunTarget(app, name=APP)], wait_for_applications_running=False)
        started.result()
    except BaseException:
        _wait_for_controller(started)  # so that the shutdown finds it
        raise
    finally:
        pool.shutdown(wait=False)  # it ends when the controller does


def _wait_for_controller(started: Future[None]) -> None:
    """Wait until the controller exists; raise what kept it from starting."""
    while not is_controller_alive():
        if started.done():
            started.result()
            return
        time.sleep(CONTROLLER_POLL_S)


def _start(config: ServiceConfig, inherited: Mapping[str, str]) -> None:
    serve.start(
        proxy_location="HeadOnly",
        # Longer than the gateway's own limit, whose answer has the API's error schema.
        http_options={
            "host": config.host,
            "port": config.port,
            "request_timeout_s": config.limits.request_timeout_s + 5,
        },
        logging_config=LOGGING,
        controller_options=actor_options(config, inherited) or None,
    )


def stop(app: str, host: str, port: int) -> None:
    """Stop the application and Ray Serve.

    Raises:
        ServingError: Ray Serve still runs, or the port is still held.
    """
    if app in serve.status().applications:
        # First, while the proxy still runs: `serve.shutdown` would cut the connections of begun requests.
        serve.delete(app)
    if is_controller_alive():
        # Without waiting, because Ray would print that a call failed which the controller's end cuts off.
        ray.get(ray.get_actor(**CONTROLLER).graceful_shutdown.remote(wait=False))
        _wait_until(
            lambda: not is_controller_alive(), "Ray Serve's controller still runs after the shutdown: restart Ray"
        )
    serve.shutdown()  # only drops the connection to the controller
    _wait_until(lambda: _free(host, port), f"port {port} is still held after the shutdown: ss -ltnp shows by what")


def _wait_until(condition: Callable[[], bool], complaint: str) -> None:
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise ServingError(complaint)
        time.sleep(POLL_S)


def is_controller_alive() -> bool:
    """Return whether Ray Serve's controller exists."""
    try:
        ray.get_actor(**CONTROLLER)
    except ValueError:
        return False
    return True


def _free(host: str, port: int) -> bool:
    try:
        check_port(host, port)
    except ServingError:
        return False
    return True
