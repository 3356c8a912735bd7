"""What is known of a node, from Ray's table of nodes and from the node's own answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["NodeFacts", "Space"]


@dataclass(frozen=True)
class Space:
    """Of a file system, in bytes."""

    total: int
    free: int


@dataclass(frozen=True)
class NodeFacts:
    """One node."""

    name: str
    group: str = ""
    """The value of its label ``raylens.io/group``."""
    cpus: float = 0.0
    """That Ray shares out."""
    gpus: float = 0.0
    """That Ray shares out."""
    object_store: float = 0.0
    """Bytes that Ray's objects may take."""
    versions: Mapping[str, str | None] = field(default_factory=dict)
    """Of python, and of packages that are installed, torch's CUDA and NCCL among them."""
    torch_error: str = ""
    torch_gpus: tuple[str, ...] = ()
    """That torch can use."""
    driver_gpus: tuple[str, ...] = ()
    """That the driver lists."""
    driver: str | None = None
    driver_error: str = ""
    shared: Space | None = None
    shared_kind: str | None = None
    """Of the file system at /dev/shm."""
    disk: Space | None = None
    disk_path: str = ""
    open_files: int = 0
    auth_mode: str = ""

    @classmethod
    def of(cls, name: str, row: Mapping[str, Any], told: Mapping[str, Any]) -> "NodeFacts":
        """From a row of ``ray.nodes()`` and what `raylens.cluster.doctor.probe.Probe.facts` answered."""
        torch, smi, resources = told["torch"], told["smi"], row["Resources"]
        return cls(
            name=name,
            group=(row.get("Labels") or {}).get("raylens.io/group", ""),
            cpus=resources.get("CPU", 0.0),
            gpus=resources.get("GPU", 0.0),
            object_store=resources.get("object_store_memory", 0.0),
            versions={**told["versions"], "cuda": torch.get("cuda"), "nccl": torch.get("nccl")},
            torch_error=str(torch.get("error", "")),
            torch_gpus=tuple(torch.get("gpus", ())),
            driver_gpus=tuple(smi.get("gpus", ())),
            driver=smi.get("driver"),
            driver_error=str(smi.get("error", "")),
            shared=_space(told["shared"]),
            shared_kind=told["shared_kind"],
            disk=_space(told["disk"]),
            disk_path=str(told["disk_path"]),
            open_files=int(told["open_files"]),
            auth_mode=str(told["auth_mode"]),
        )


def _space(pair: Any) -> Space | None:
    return None if pair is None else Space(int(pair[0]), int(pair[1]))
