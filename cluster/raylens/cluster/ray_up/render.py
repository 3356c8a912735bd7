"""Rendering of the file for `ray up`: its tree and its text."""

from typing import Any

import yaml

from raylens.cluster.description import ClusterSpec, LauncherSpec
from raylens.cluster.plain_yaml import PlainDumper
from raylens.cluster.ray_up import clouds, on_prem
from raylens.cluster.ray_up.docker import STORE, TOKEN, settings
from raylens.errors import ConfigError

__all__ = ["render", "to_yaml"]

START = "ulimit -n 65536; ray start --object-manager-port=8076"
STORE_ARGUMENT = f'--object-store-memory="${STORE}"'
GOOGLE = "build the image with PACKAGES=google-api-python-client, with which the head requests machines"
NEEDS = f"python -c 'import googleapiclient' || {{ echo '{GOOGLE}' >&2; exit 1; }}"
HEADER = """\
# For `ray up`, rendered by `raylens cluster render ray-up`; change the description and render again.
# Token: {token_file} is copied to every machine; `ray get-auth-token --generate` makes it. It is not in here.
# Whoever calls `ray up`, `raylens jobs` or `ray exec` sets RAY_AUTH_MODE=token in his own shell.
# Nothing is public: machines have no public address, the dashboard listens on the head's loopback;
# `ray dashboard FILE` brings it, and with it the Jobs API, to port 8265 of your machine.
"""


def render(spec: ClusterSpec) -> dict[str, Any]:
    """Return the tree of the file's keys and values.

    Raises:
        ConfigError: the description has no ``launcher``, or a part that its machines cannot have.
    """
    launcher = spec.launcher
    if launcher is None:
        raise ConfigError("launcher is missing: describe the machines of `ray up` (aws, gcp or on_prem)")
    _check_credentials(spec, launcher)
    return {
        "cluster_name": spec.name,
        "max_workers": sum(group.max_nodes for group in spec.groups.values()),
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": spec.idle_minutes,
        "auth": _auth(launcher),
        **(_on_prem(spec, launcher) if launcher.on_prem else _cloud(spec, launcher)),
        "file_mounts": {TOKEN: launcher.token_file},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        "initialization_commands": list(launcher.before_container),
        "setup_commands": [],
        "worker_setup_commands": [],
    }


def to_yaml(tree: dict[str, Any], spec: ClusterSpec) -> str:
    """Return the text of the file, with a header that explains its use."""
    assert spec.launcher is not None
    text = yaml.dump(tree, Dumper=PlainDumper, sort_keys=False, allow_unicode=True, width=120)
    return HEADER.format(token_file=spec.launcher.token_file) + text


def _cloud(spec: ClusterSpec, launcher: LauncherSpec) -> dict[str, Any]:
    provider = clouds.aws_provider(launcher.aws) if launcher.aws else None
    if launcher.gcp:
        provider = clouds.gcp_provider(launcher.gcp)
    return {
        "provider": provider,
        "docker": settings(spec, launcher, spec.image),
        "available_node_types": clouds.node_types(spec),
        "head_node_type": clouds.HEAD_TYPE,
        "head_setup_commands": [NEEDS] if launcher.gcp else [],
        "head_start_ray_commands": ["ray stop", _head_start("")],
        "worker_start_ray_commands": ["ray stop", f"{START} --address=$RAY_HEAD_IP:6379 {STORE_ARGUMENT}"],
    }


def _on_prem(spec: ClusterSpec, launcher: LauncherSpec) -> dict[str, Any]:
    machines = on_prem.provider(spec)
    start = f"{START} --address=$RAY_HEAD_IP:6379 {STORE_ARGUMENT}"
    docker = settings(spec, launcher, on_prem.worker_image(spec))
    return {
        "min_workers": len(machines["worker_ips"]),
        "provider": machines,
        "docker": docker | {"worker_run_options": on_prem.worker_options(spec)},
        "head_setup_commands": [],
        "head_start_ray_commands": ["ray stop", _head_start(on_prem.head_arguments(spec))],
        "worker_start_ray_commands": ["ray stop", on_prem.worker_command(spec, start)],
    }


def _head_start(arguments: str) -> str:
    """Return the head's command; the dashboard, which receives jobs, listens only on the machine's loopback."""
    command = (
        f"{START} --head --port=6379 --dashboard-host=127.0.0.1 --autoscaling-config=~/ray_bootstrap_config.yaml "
        f"{STORE_ARGUMENT} {arguments}"
    )
    return command.strip()


def _auth(launcher: LauncherSpec) -> dict[str, str]:
    login = {"ssh_user": launcher.ssh_user, "ssh_private_key": launcher.ssh_private_key}
    return login | ({"ssh_proxy_command": launcher.ssh_proxy_command} if launcher.ssh_proxy_command else {})


def _check_credentials(spec: ClusterSpec, launcher: LauncherSpec) -> None:
    if spec.credentials and launcher.on_prem and not launcher.env_file:
        raise ConfigError(
            f"credentials: {spec.credentials[0].secret!r} is a Secret of Kubernetes; set launcher.env_file to a file "
            "that every machine has"
        )
