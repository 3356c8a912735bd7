"""The options with which `ray up` starts the container of each machine."""

import shlex
from collections.abc import Mapping

from raylens.cluster.description import ClusterSpec, LauncherSpec, MachineSpec, VolumeSpec
from raylens.cluster.niceness import WORKER_NICENESS
from raylens.errors import ConfigError

__all__ = ["STORE", "TOKEN", "common_options", "machine_options", "settings"]

TOKEN = "/etc/raylens/auth_token"  # noqa: S105 (a place, not a token)
"""The path of the token's file on the machines."""
STORE = "RAYLENS_OBJECT_STORE_BYTES"
"""The variable with the bytes for Ray's objects on a machine, because one command starts all workers."""
COMMON = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN_PATH": TOKEN,
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_JOB_STOP_SIGNAL": "SIGINT",
    "RAY_JOB_STOP_WAIT_TIME_S": "30",
}
"""Variables of all containers; `raylens.cluster.kuberay.container` has the reasons."""


def common_options(spec: ClusterSpec, launcher: LauncherSpec) -> list[str]:
    """Return the options of all containers: the fewest privileges, the path of the token, the cluster's variables."""
    serving = {"RAY_SERVE_ENABLE_HA_PROXY": "1"} if spec.serve else {}
    values = COMMON | {WORKER_NICENESS: str(spec.niceness)} | serving | spec.env
    file = ["--env-file", launcher.env_file] if launcher.env_file else []
    return _quoted(
        [
            "--cap-drop=ALL",
            "--security-opt=no-new-privileges",
            "--ulimit=nofile=65536:65536",
            *_variables(values),
            *file,
        ]
    )


def machine_options(spec: ClusterSpec, name: str, machine: MachineSpec) -> list[str]:
    """Return the options of the head's container, or of a group's containers.

    Raises:
        ConfigError: a volume is a volume of Kubernetes.
    """
    values = {STORE: str(machine.object_store_bytes)} | machine.env
    mounts = [option for volume in spec.volumes_of(machine) for option in _mount(name, volume)]
    return _quoted([f"--shm-size={machine.shared_memory_bytes}", *_variables(values), *mounts])


def settings(spec: ClusterSpec, launcher: LauncherSpec, worker_image: str) -> dict[str, object]:
    """Return the ``docker`` section of the file, which holds for all nodes that do not override it."""
    return {
        "head_image": spec.image_of(spec.head),
        "worker_image": worker_image,
        "container_name": "raylens",
        "pull_before_run": True,
        "disable_shm_size_detection": True,
        "run_options": common_options(spec, launcher),
        "head_run_options": machine_options(spec, "head", spec.head),
    }


def _variables(values: Mapping[str, str]) -> list[str]:
    return [f"--env={name}={value}" for name, value in values.items()]


def _mount(name: str, volume: VolumeSpec) -> list[str]:
    ending = ",readonly" if volume.read_only else ""
    if volume.host:
        return [f"--mount=type=bind,src={volume.host},dst={volume.path}{ending}"]
    if volume.empty:
        return [f"--mount=type=volume,dst={volume.path}{ending}"]
    raise ConfigError(
        f"{name}: volume {volume.name!r} is a volume of Kubernetes; with `ray up` use host (a folder) or empty"
    )


def _quoted(options: list[str]) -> list[str]:
    """Quote options for the machine's shell, which reads them."""
    return [shlex.quote(option) for option in options]
