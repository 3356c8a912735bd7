"""The facts about a node, from Ray's table of nodes and from the node's own answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["NodeFacts", "Space"]


@dataclass(frozen=True)
class Space:
    """The size of a file system and its free space, in bytes."""

    total: int
    free: int


@dataclass(frozen=True)
class NodeFacts:
    """Everything that the checks of a single node look at."""

    name: str
    group: str = ""
    """The value of the node's label ``raylens.io/group``."""
    cpus: float = 0.0
    """Number of CPUs that Ray allocates to work."""
    gpus: float = 0.0
    """Number of GPUs that Ray allocates to work."""
    object_store: float = 0.0
    """Bytes that Ray's objects may take."""
    versions: Mapping[str, str | None] = field(default_factory=dict)
    """Versions of Python, of installed packages, and of torch's CUDA and NCCL, by name."""
    torch_error: str = ""
    torch_gpus: tuple[str, ...] = ()
    """Names of the GPUs that torch can use."""
    driver_gpus: tuple[str, ...] = ()
    """Names of the GPUs that the driver lists."""
    driver: str | None = None
    driver_error: str = ""
    shared: Space | None = None
    shared_kind: str | None = None
    """Type of the file system at /dev/shm; None if nothing is mounted there."""
    disk: Space | None = None
    disk_path: str = ""
    open_files: int = 0
    auth_mode: str = ""

    @classmethod
    def of(cls, name: str, row: Mapping[str, Any], answer: Mapping[str, Any]) -> "NodeFacts":
        """Combine a row of ``ray.nodes()`` with the answer of `raylens.cluster.doctor.probe.Probe.facts`."""
        torch, smi, resources = answer["torch"], answer["smi"], row["Resources"]
        return cls(
            name=name,
            group=(row.get("Labels") or {}).get("raylens.io/group", ""),
            cpus=resources.get("CPU", 0.0),
            gpus=resources.get("GPU", 0.0),
            object_store=resources.get("object_store_memory", 0.0),
            versions={**answer["versions"], "cuda": torch.get("cuda"), "nccl": torch.get("nccl")},
            torch_error=str(torch.get("error", "")),
            torch_gpus=tuple(torch.get("gpus", ())),
            driver_gpus=tuple(smi.get("gpus", ())),
            driver=smi.get("driver"),
            driver_error=str(smi.get("error", "")),
            shared=_space(answer["shared"]),
            shared_kind=answer["shared_kind"],
            disk=_space(answer["disk"]),
            disk_path=str(answer["disk_path"]),
            open_files=int(answer["open_files"]),
            auth_mode=str(answer["auth_mode"]),
        )


def _space(pair: Any) -> Space | None:
    return None if pair is None else Space(int(pair[0]), int(pair[1]))
