"""The machines of a cluster: its head, and its groups of alike nodes."""
# ruff: noqa: RUF012 (pydantic copies mutable defaults)

from collections.abc import Iterable
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from raylens.cluster.description.fields import (
    Annotations,
    Count,
    Environment,
    Image,
    Labels,
    LabelText,
    Minutes,
    Positive,
    Quantity,
    ResourceName,
    Selector,
    bytes_of,
)
from raylens.cluster.description.pods import TolerationSpec, VolumeSpec
from raylens.config import Node
from raylens.placement import GroupSize

__all__ = ["GroupSpec", "HeadSpec", "MachineSpec", "check_volumes"]

GIB = 2**30
SHARED_PART = 0.3
"""Of a node's memory that is for shared memory, unless said otherwise: Ray's own default for its objects."""
OBJECTS_PART = 0.9
"""Of shared memory that is for Ray's objects, unless said otherwise; the rest is for NCCL and loaders."""
LEAST_OBJECTS = 75 * 2**20
"""Bytes, with fewer of which Ray does not start."""
Host = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.:_-]*$")]
ResourceKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:/-]*$")]


class MachineSpec(Node):
    """One node: a pod on Kubernetes, a machine with `ray up`."""

    cpus: Positive
    memory: Quantity
    shared_memory: Quantity | None = None
    """Part of ``memory``; unset, 30% of it."""
    object_store: Quantity | None = None
    """For Ray's objects, part of ``shared_memory``; unset, 90% of it."""
    scratch: Quantity = "20Gi"
    """Disk for Ray's logs and for objects that do not fit into memory."""
    image: Image | None = None
    """Instead of the cluster's."""
    grace_s: Positive | None = None
    """Seconds between the word that a node must go and its end; unset, enough to save or to hand work over."""
    env: Environment = {}
    labels: Labels = {}
    """Labels of Ray's nodes, for placing work of your own."""
    annotations: Annotations = {}
    """Of pods."""
    node_selector: Selector = {}
    """Labels of the Kubernetes nodes that these pods go to."""
    tolerations: tuple[TolerationSpec, ...] = ()
    volumes: tuple[VolumeSpec, ...] = ()
    priority_class: ResourceName | None = None
    """Of pods, when Kubernetes is short of room; it must exist."""
    instance_type: Annotated[str, Field(min_length=1)] | None = None
    """Of the cloud's machines, for `ray up`."""
    price_per_hour: Annotated[float, Field(gt=0)] | None = None
    """Of a node, in your money, for `raylens cost`."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.memory_bytes < GIB:
            raise ValueError(f"memory = {self.memory!r}: a node of Ray needs 1Gi at least")
        if self.shared_memory_bytes >= self.memory_bytes:
            raise ValueError(
                f"shared_memory = {self.shared_memory!r} must be less than memory = {self.memory!r}, as a part of it"
            )
        if self.object_store_bytes > self.shared_memory_bytes:
            raise ValueError(
                f"object_store = {self.object_store!r} is more than shared_memory, {self.shared_memory_bytes:,} bytes, "
                "where Ray keeps its objects: raise shared_memory or lower object_store"
            )
        if self.object_store_bytes < LEAST_OBJECTS:
            raise ValueError(
                f"object_store comes to {self.object_store_bytes:,} bytes, Ray needs {LEAST_OBJECTS:,}: raise "
                "object_store or shared_memory"
            )
        if bytes_of(self.scratch) < GIB:
            raise ValueError(f"scratch = {self.scratch!r}: Ray's logs need 1Gi at least")
        check_volumes(self.volumes)
        return self

    @property
    def memory_bytes(self) -> int:
        """All of it."""
        return bytes_of(self.memory)

    @property
    def shared_memory_bytes(self) -> int:
        """The size of ``/dev/shm``."""
        return bytes_of(self.shared_memory) if self.shared_memory else int(SHARED_PART * self.memory_bytes)

    @property
    def object_store_bytes(self) -> int:
        """What Ray's objects may take."""
        return bytes_of(self.object_store) if self.object_store else int(OBJECTS_PART * self.shared_memory_bytes)


class HeadSpec(MachineSpec):
    """The node that coordinates the others and runs the drivers. Ray places no work on it."""

    @model_validator(mode="before")
    @classmethod
    def _no_worker(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        if values.get("spot"):
            raise ValueError("spot = true: whoever loses the head loses every run and the service; leave it out")
        if values.get("gpus"):
            raise ValueError(f"gpus = {values['gpus']}: no work is placed on the head; give them to a group")
        return {key: value for key, value in values.items() if key not in ("spot", "gpus")}


class GroupSpec(MachineSpec):
    """Nodes that are alike. The autoscaler keeps as many as the work asks for, within bounds."""

    min_nodes: Count = 0
    max_nodes: Positive = 1
    gpus: Count = 0
    """Of a node."""
    gpu_kind: Annotated[LabelText, Field(min_length=1)] | None = None
    """As the cloud's label of its nodes has it, e.g. ``nvidia-h100-80gb`` on GKE."""
    gpu_resource: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*/([a-z0-9][a-z0-9-]*)?gpu$")] = "nvidia.com/gpu"
    """As Kubernetes counts them."""
    spot: bool = False
    """Machines that cost less and may be taken away."""
    idle_minutes: Minutes | None = None
    """Before an idle node goes; unset, the cluster's."""
    resources: dict[ResourceKey, Positive] = {}
    """Custom resources of Ray's nodes."""
    hosts: tuple[Host, ...] = ()
    """Names or addresses of your own machines, for `ray up` without a cloud."""

    @property
    def size(self) -> GroupSize:
        """The most that it may become."""
        return GroupSize(self.max_nodes, self.cpus, self.gpus)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.min_nodes > self.max_nodes:
            raise ValueError(
                f"min_nodes = {self.min_nodes} is more than max_nodes = {self.max_nodes}: lower it, or raise max_nodes"
            )
        if self.gpu_kind and not self.gpus:
            raise ValueError(f"gpu_kind = {self.gpu_kind!r} without gpus: say how many a node has, e.g. gpus: 8")
        if taken := {"CPU", "GPU", "memory", "object_store_memory"} & set(self.resources):
            raise ValueError(f"resources: {', '.join(sorted(taken))} follow from cpus, gpus and memory; leave them out")
        return self


def check_volumes(volumes: Iterable[VolumeSpec]) -> None:
    """Refuse two volumes of one name, or in one place.

    Raises:
        ValueError: there are.
    """
    names, paths = set[str](), set[str]()
    for volume in volumes:
        if volume.name in names or volume.path in paths:
            raise ValueError(
                f"volumes: {volume.name!r} at {volume.path!r} stands there twice, by its name or by its place; keep one"
            )
        names.add(volume.name)
        paths.add(volume.path)
