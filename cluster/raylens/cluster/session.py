"""A Ray session for a command: the cluster that was named, or one on this machine that ends with the command."""

import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import ray

from raylens.capacity import declare_own_cluster
from raylens.cluster.niceness import WORKER_NICENESS, worker_niceness
from raylens.cluster.secrets import VARIABLE, check_nodes
from raylens.errors import ClusterError
from raylens.interrupts import sigterm_interrupts
from raylens.ray_internals import MODULES_OF_INIT, on_worker_output

__all__ = ["LOCAL_CPUS", "session", "store_bytes"]

LOCAL_CPUS = 4
"""Logical CPUs that a machine declares at least: two workers, the stream and a replica fit on two cores."""
STORE_BYTES_PER_CPU = 600_000_000
"""For the stream's units on their way: some 150 MB each, of which a CPU has one in the making and some done."""
STORE_BYTES_LEAST = 500_000_000
SHARED_MEMORY = "/dev/shm"  # noqa: S108 (not a temporary file: where Ray keeps its objects)


@contextmanager
def session(
    address: str | None = None,
    num_cpus: int | None = None,
    environment: Mapping[str, str] | None = None,
    *,
    say: Callable[[str], object] = lambda _: None,
    meanwhile: Sequence[str] = (),
) -> Iterator[Mapping[str, str]]:
    """Inside, Ray is initialised; what was started here is stopped at the end. Within another session, that one serves.

    Args:
        address: a running cluster (``ray://host:10001``, ``auto``), or None for this machine alone.
        num_cpus: logical CPUs of the cluster on this machine; its cores, at least four, by default.
        environment: variables for every process of the cluster on this machine.
        say: is given one line before what takes seconds.
        meanwhile: names of modules that the command will need; they are imported while Ray starts on this machine.

    Yields:
        Of ``environment`` what the cluster's processes have: none on a cluster that was there before.

    Raises:
        ClusterError: the cluster does not answer, or both arguments were given.
    """
    if ray.is_initialized():
        yield {}
        return
    _environment()
    given = {} if address else dict(environment or {})
    if address and num_cpus:
        raise ClusterError("--num-cpus declares CPUs of a cluster on this machine; it cannot be used with --address")
    declare_own_cluster(address is None)
    try:
        if address:
            say(f"connecting to the cluster at {address}")
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        else:
            cpus = num_cpus or max(LOCAL_CPUS, os.cpu_count() or 1)
            say(f"starting Ray on this machine with {cpus} logical CPUs")
            with _imported(meanwhile):
                _init_local(cpus, given)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f"the cluster at {address!r}" if address else "a cluster on this machine"
        raise ClusterError(f"cannot use {where}: {_first_line(error)}") from error
    on_worker_output(_to_log)
    try:
        if address and os.environ.get(VARIABLE):
            check_nodes()
        # After ray.init, which puts a handler in place that prints a stack and aborts, and leaves Ray behind.
        with sigterm_interrupts():
            yield given
    finally:
        ray.shutdown()
        declare_own_cluster(False)


@contextmanager
def _imported(modules: Sequence[str]) -> Iterator[None]:
    """Import modules in a thread while the block runs. An error is raised again by whoever imports the module later."""
    if not modules:
        yield
        return
    # Two threads that import circular modules at the same time, as aiohttp's, see parts of them. So what ray.init
    # imports by itself comes first; a test looks for more of it.
    for name in MODULES_OF_INIT:
        import_module(name)
    with ThreadPoolExecutor(1, thread_name_prefix="imports") as thread:
        for name in modules:
            thread.submit(import_module, name)
        yield


def _init_local(num_cpus: int, environment: Mapping[str, str]) -> None:
    # Only this command and what it starts may talk to this cluster, because Ray listens on the network too. Ray
    # switches authentication on by itself; a token that lives as long as the command leaves no file in the user's home.
    if "RAY_AUTH_MODE" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.update(environment)
    ray.init(
        address="local",
        num_cpus=num_cpus,
        object_store_memory=store_bytes(num_cpus),
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        configure_logging=True,
    )


def store_bytes(num_cpus: int) -> int:
    """What Ray may hold in shared memory; beyond what there is, it would spill to disk or work from there."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    shared = shutil.disk_usage(SHARED_MEMORY).free if Path(SHARED_MEMORY).is_dir() else memory
    return max(STORE_BYTES_LEAST, int(min(num_cpus * STORE_BYTES_PER_CPU, 0.3 * memory, 0.8 * shared)))


def _environment() -> None:
    """Ray's settings. Its notices are for its own developers: ours go to the terminal, Ray's into its log files."""
    os.environ[WORKER_NICENESS] = worker_niceness()
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
    # Ray Train looks at its workers every 2 s otherwise, and every report and the end of a run wait for that look.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    # Ray Train's controller waits for actors in its event loop on purpose, and would warn of it.
    os.environ.setdefault("RAY_WARN_BLOCKING_GET_INSIDE_ASYNC", "0")
    for name in ("ray", "ray.data", "ray.train", "ray.serve"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _to_log(data: dict[str, Any], ignore_prefix: bool) -> None:  # noqa: ARG001
    """What Ray's daemons have to say, twenty lines of a log for a lost node among it, would go to standard output.

    What it means for a command, the command says itself.
    """
    logging.getLogger("ray").info("%s", "\n".join(map(str, data.get("lines", ()))))


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
