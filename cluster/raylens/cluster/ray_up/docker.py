"""How each machine's container is started."""

import shlex
from collections.abc import Mapping

from raylens.cluster.description import ClusterSpec, LauncherSpec, MachineSpec, VolumeSpec
from raylens.cluster.niceness import WORKER_NICENESS
from raylens.errors import ConfigError

__all__ = ["STORE", "TOKEN", "common_options", "machine_options", "settings"]

TOKEN = "/etc/raylens/auth_token"  # noqa: S105 (a place, not a token)
"""Where the machines have the file of the token."""
STORE = "RAYLENS_OBJECT_STORE_BYTES"
"""The variable that says what Ray's objects may take on a machine; all workers are started by one command."""
COMMON = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN_PATH": TOKEN,
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_JOB_STOP_SIGNAL": "SIGINT",
    "RAY_JOB_STOP_WAIT_TIME_S": "30",
}
"""What is said of them beside container.py of the manifests holds here too."""


def common_options(spec: ClusterSpec, launcher: LauncherSpec) -> list[str]:
    """Of all containers: as few rights as they need, the way to the token, and the cluster's variables."""
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
    """Of the head's container, or of those of a group.

    Raises:
        ConfigError: a volume is one of Kubernetes.
    """
    values = {STORE: str(machine.object_store_bytes)} | machine.env
    mounts = [option for volume in spec.volumes_of(machine) for option in _mount(name, volume)]
    return _quoted([f"--shm-size={machine.shared_memory_bytes}", *_variables(values), *mounts])


def settings(spec: ClusterSpec, launcher: LauncherSpec, worker_image: str) -> dict[str, object]:
    """The part of the file that says what is started where nothing else is said."""
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
        f"{name}: volume {volume.name!r} is one of Kubernetes; the machines of `ray up` have host (a folder) and empty"
    )


def _quoted(options: list[str]) -> list[str]:
    """A shell of the machine reads them."""
    return [shlex.quote(option) for option in options]
