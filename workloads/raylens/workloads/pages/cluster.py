"""The page of ``raylens cluster check``: a description as a table, and for what it is complete."""

from collections.abc import Iterator

from rich.table import Table

from raylens.cluster import kuberay, ray_up
from raylens.cluster.description import ClusterSpec, GroupSpec, MachineSpec, is_pinned
from raylens.errors import ConfigError
from raylens.report import ABSENT, GIB

__all__ = ["check_page"]

COLUMNS = ("nodes", "CPUs", "GPUs", "GiB", "shared", "objects", "spot", "price/h")


def check_page(spec: ClusterSpec) -> Iterator[str | Table]:
    """Yield the groups and images, and whether the description is complete for KubeRay and for `ray up`.

    Raises:
        ConfigError: something that the description is meant for lacks a part.
    """
    yield _table(spec)
    for name, image in dict.fromkeys(
        (("" if machine.image is None else name), spec.image_of(machine)) for name, machine in spec.machines()
    ):
        pinned = "pinned by its digest" if is_pinned(image) else "a tag, which its registry may move; a digest is fixed"
        yield f"image{f' of {name}' if name else ''}: {image} ({pinned})"
    yield f"token: the Secret {spec.token_secret}, key auth_token"
    for credentials in spec.credentials:
        yield f"credentials: the Secret {credentials.secret}, {', '.join(credentials.keys) or 'all its keys'}"
    yield from _targets(spec)


def _targets(spec: ClusterSpec) -> Iterator[str]:
    problems = []
    for name, complain in (("KubeRay", _kuberay), ("`ray up`", _ray_up)):
        problem = complain(spec)
        if problem is None:
            yield f"{name}: complete"
        elif problem:
            problems.append(problem)
            yield f"{name}: {problem}"
    if problems:
        raise ConfigError("; ".join(problems))


def _kuberay(spec: ClusterSpec) -> str | None:
    try:
        kuberay.render(spec, "cluster")
    except ConfigError as error:
        return str(error) if spec.launcher is None else ""
    return None


def _ray_up(spec: ClusterSpec) -> str | None:
    if spec.launcher is None:
        return ""
    try:
        ray_up.render(spec)
    except ConfigError as error:
        return str(error)
    return None


def _table(spec: ClusterSpec) -> Table:
    table = Table(
        title=f"{spec.name}: Ray {spec.ray_version}",
        caption="Amounts of one node. GiB: memory; shared: /dev/shm, a part of it; objects: Ray's objects, a part of "
        "shared. The head takes no work.",
    )
    table.add_column("group")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for name, machine in spec.machines():
        table.add_row(name, *_row(machine))
    return table


def _row(machine: MachineSpec) -> list[str]:
    group = machine if isinstance(machine, GroupSpec) else None
    nodes = f"{group.min_nodes}-{group.max_nodes}" if group else "1"
    gpus = f"{group.gpus} {group.gpu_kind or ''}".strip() if group else "0"
    sizes = (machine.memory_bytes, machine.shared_memory_bytes, machine.object_store_bytes)
    price = f"{machine.price_per_hour:g}" if machine.price_per_hour else ABSENT
    spot = "yes" if group and group.spot else "no"
    return [nodes, str(machine.cpus), gpus, *(f"{size / GIB:.1f}" for size in sizes), spot, price]
