"""Your own machines for `ray up`: one command starts Ray on all of them, and each finds its group by its name."""

import shlex
from typing import Any

from raylens.cluster.description import ClusterSpec, GroupSpec
from raylens.cluster.ray_up.docker import STORE, machine_options
from raylens.config.placement import Group, node_labels
from raylens.errors import ConfigError

__all__ = ["head_arguments", "provider", "worker_command", "worker_image", "worker_options"]


def provider(spec: ClusterSpec) -> dict[str, Any]:
    """Return the provider with the hosts of all groups.

    Raises:
        ConfigError: a group has not as many hosts as nodes, or a host is named twice.
    """
    assert spec.launcher is not None
    assert spec.launcher.on_prem is not None
    head = spec.launcher.on_prem.head
    seen = [head]
    for name, group in spec.groups.items():
        if len(group.hosts) != group.max_nodes:
            raise ConfigError(
                f"{name}.hosts names {len(group.hosts)} machines, {name}.max_nodes = {group.max_nodes}: make them equal"
            )
        for host in group.hosts:
            if host in seen:
                raise ConfigError(f"{name}.hosts: {host!r} is in the cluster already; name another machine")
            seen.append(host)
    return {"type": "local", "head_ip": head, "worker_ips": seen[1:]}


def worker_image(spec: ClusterSpec) -> str:
    """Return the image that all groups have.

    Raises:
        ConfigError: the groups have several images.
    """
    images = {name: spec.image_of(group) for name, group in spec.groups.items()}
    if len(set(images.values())) > 1:
        listed = ", ".join(f"{name}: {image}" for name, image in images.items())
        raise ConfigError(
            f"on_prem: `ray up` starts one image on all workers, but there are {listed}; use the GPU image for all"
        )
    return next(iter(images.values()))


def worker_options(spec: ClusterSpec) -> list[str]:
    """Return the options of all workers' containers, with the largest shared memory of any group as their limit.

    Raises:
        ConfigError: a group has volumes of its own, or a volume is a volume of Kubernetes.
    """
    for name, group in spec.groups.items():
        if group.volumes:
            raise ConfigError(
                f"{name}.volumes: `ray up` starts all workers with equal volumes; describe them for the whole cluster"
            )
    name, largest = max(spec.groups.items(), key=lambda item: item[1].shared_memory_bytes)
    return machine_options(spec, name, largest.model_copy(update={"env": {}}))


def head_arguments(spec: ClusterSpec) -> str:
    """Return the labels and resources of the head as arguments of `ray start`."""
    sizes = {name: group.size for name, group in spec.groups.items()}
    return shlex.join(["--num-cpus=0", _labels(node_labels("head", sizes) | spec.head.labels)])


def worker_command(spec: ClusterSpec, start: str) -> str:
    """Return the command ``start`` with the arguments of the machine's group."""
    cases = " ".join(f"{_hosts(group)}) {_arguments(spec, name, group)};;" for name, group in spec.groups.items())
    unknown = "*) echo 'raylens: no group has this machine among its hosts' >&2; exit 1;;"
    return f'case " $(hostname -I) $(hostname) $(hostname -f) " in {cases} {unknown} esac; {start} "$@"'


def _hosts(group: GroupSpec) -> str:
    return "|".join(f"*{shlex.quote(f' {host} ')}*" for host in group.hosts)


def _arguments(spec: ClusterSpec, name: Group, group: GroupSpec) -> str:
    sizes = {other: each.size for other, each in spec.groups.items()}
    arguments = [f"--num-cpus={group.cpus}", f"--num-gpus={group.gpus}"]
    arguments.append(_labels(node_labels(name, sizes) | group.labels))
    if group.resources:
        numbers = ", ".join(f'"{resource}": {amount}' for resource, amount in group.resources.items())
        arguments.append(f"--resources={{{numbers}}}")
    values = {STORE: str(group.object_store_bytes)} | group.env
    exported = "; ".join(f"export {name}={shlex.quote(value)}" for name, value in values.items())
    return f"{exported}; set -- {shlex.join(arguments)}"


def _labels(labels: dict[str, str]) -> str:
    return "--labels=" + ",".join(f"{key}={value}" for key, value in labels.items())
