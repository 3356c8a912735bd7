"""A Ray session for a command: on the cluster that was named, or on one of this machine that ends with the command."""

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
"""The fewest logical CPUs that a machine declares: two workers, the stream and a replica fit on two cores."""
STORE_BYTES_PER_CPU = 600_000_000
"""Shared memory for the stream's blocks, about 150 MB each; a CPU has one in progress and some that are done."""
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
    """Initialise Ray for a block, and stop at its end what was started here. Inside another session, that one is used.

    Args:
        address: a running cluster (``ray://host:10001``, ``auto``), or None for this machine alone.
        num_cpus: logical CPUs of the cluster on this machine; its cores, at least four, by default.
        environment: variables for every process of the cluster on this machine.
        say: receives a line before each step that takes seconds.
        meanwhile: names of modules that the command will need; they are imported while Ray starts on this machine.

    Yields:
        The part of ``environment`` that the cluster's processes have: nothing on a cluster that existed before.

    Raises:
        ClusterError: the cluster does not answer, or both arguments were given.
    """
    if ray.is_initialized():
        yield {}
        return
    _environment()
    inherited = {} if address else dict(environment or {})
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
                _init_local(cpus, inherited)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f"the cluster at {address!r}" if address else "a cluster on this machine"
        raise ClusterError(f"cannot use {where}: {_first_line(error)}") from error
    on_worker_output(_to_log)
    try:
        if address and os.environ.get(VARIABLE):
            check_nodes()
        # After ray.init, which installs a handler that prints a stack, aborts, and leaves Ray's processes behind.
        with sigterm_interrupts():
            yield inherited
    finally:
        ray.shutdown()
        declare_own_cluster(False)


@contextmanager
def _imported(modules: Sequence[str]) -> Iterator[None]:
    """Import modules in a thread while the block runs. An error is raised again when the module is imported later."""
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
    # Only this command and its children may talk to this cluster, because Ray listens on the network too. Ray enables
    # authentication by itself; a token that lives as long as the command leaves no file in the user's home.
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
    """Return the bytes of shared memory for Ray's objects; more than the machine has would make Ray use the disk."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    shared = shutil.disk_usage(SHARED_MEMORY).free if Path(SHARED_MEMORY).is_dir() else memory
    return max(STORE_BYTES_LEAST, int(min(num_cpus * STORE_BYTES_PER_CPU, 0.3 * memory, 0.8 * shared)))


def _environment() -> None:
    """Set Ray's variables and log levels: raylens writes to the terminal, Ray into its log files."""
    os.environ[WORKER_NICENESS] = worker_niceness()
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
    # By default Ray Train polls its workers every 2 s, and every report and the end of a run wait for a poll.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    # Ray Train's controller waits for actors in its event loop on purpose; Ray would warn about it.
    os.environ.setdefault("RAY_WARN_BLOCKING_GET_INSIDE_ASYNC", "0")
    for name in ("ray", "ray.data", "ray.train", "ray.serve"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _to_log(data: dict[str, Any], ignore_prefix: bool) -> None:  # noqa: ARG001
    """Redirect to a log what Ray would print to standard output, such as twenty lines about a lost node.

    The command itself reports what such an event means for it.
    """
    logging.getLogger("ray").info("%s", "\n".join(map(str, data.get("lines", ()))))


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
