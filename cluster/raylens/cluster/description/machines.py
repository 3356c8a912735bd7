"""The machines of a cluster: its head, and its groups of equal nodes."""
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
from raylens.config.placement import GroupSize

__all__ = ["GroupSpec", "HeadSpec", "MachineSpec", "check_volumes"]

GIB = 2**30
SHARED_PART = 0.3
"""Default share of a node's memory that is shared memory: Ray's own default for its objects."""
OBJECTS_PART = 0.9
"""Default share of shared memory that is for Ray's objects; the rest is for NCCL and loaders."""
LEAST_OBJECTS = 75 * 2**20
"""The fewest bytes of an object store with which Ray starts."""
Host = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.:_-]*$")]
ResourceKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:/-]*$")]


class MachineSpec(Node):
    """A node of the cluster: a pod on Kubernetes, a machine with `ray up`."""

    cpus: Positive
    memory: Quantity
    shared_memory: Quantity | None = None
    """Shared memory, a part of ``memory``; by default 30% of it."""
    object_store: Quantity | None = None
    """Memory for Ray's objects, a part of ``shared_memory``; by default 90% of it."""
    scratch: Quantity = "20Gi"
    """Disk space for Ray's logs and for objects that do not fit into memory."""
    image: Image | None = None
    """Image of this node in place of the cluster's."""
    grace_s: Positive | None = None
    """Seconds between the notice that a node must stop and its end; by default enough to save or to hand over work."""
    env: Environment = {}
    labels: Labels = {}
    """Labels of Ray's nodes, with which you can place work of your own."""
    annotations: Annotations = {}
    """Annotations of the pods of this node or group."""
    node_selector: Selector = {}
    """Labels of the Kubernetes nodes on which these pods may run."""
    tolerations: tuple[TolerationSpec, ...] = ()
    volumes: tuple[VolumeSpec, ...] = ()
    priority_class: ResourceName | None = None
    """Priority class of the pods, for when Kubernetes is short of resources; it must exist."""
    instance_type: Annotated[str, Field(min_length=1)] | None = None
    """The cloud's type of machine, for `ray up`."""
    price_per_hour: Annotated[float, Field(gt=0)] | None = None
    """Price of a node in your currency, for `raylens cost`."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.memory_bytes < GIB:
            raise ValueError(f"memory = {self.memory!r}: a node of Ray needs at least 1Gi")
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
            raise ValueError(f"scratch = {self.scratch!r}: Ray's logs need at least 1Gi")
        check_volumes(self.volumes)
        return self

    @property
    def memory_bytes(self) -> int:
        """The node's whole memory in bytes."""
        return bytes_of(self.memory)

    @property
    def shared_memory_bytes(self) -> int:
        """The size of ``/dev/shm`` in bytes."""
        return bytes_of(self.shared_memory) if self.shared_memory else int(SHARED_PART * self.memory_bytes)

    @property
    def object_store_bytes(self) -> int:
        """The bytes that Ray's objects may take."""
        return bytes_of(self.object_store) if self.object_store else int(OBJECTS_PART * self.shared_memory_bytes)


class HeadSpec(MachineSpec):
    """The node that coordinates the others and runs the drivers. Ray places no work on it."""

    @model_validator(mode="before")
    @classmethod
    def _no_worker(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        if values.get("spot"):
            raise ValueError(
                "spot = true: without its head, the cluster loses every run and the service; leave spot out"
            )
        if values.get("gpus"):
            raise ValueError(f"gpus = {values['gpus']}: no work is placed on the head; give them to a group")
        return {key: value for key, value in values.items() if key not in ("spot", "gpus")}


class GroupSpec(MachineSpec):
    """A group of equal nodes. The autoscaler keeps as many as the work requires, within bounds."""

    min_nodes: Count = 0
    max_nodes: Positive = 1
    gpus: Count = 0
    """Number of GPUs of a node."""
    gpu_kind: Annotated[LabelText, Field(min_length=1)] | None = None
    """Type of the GPUs as in the cloud's label of its nodes, e.g. ``nvidia-h100-80gb`` on GKE."""
    gpu_resource: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*/([a-z0-9][a-z0-9-]*)?gpu$")] = "nvidia.com/gpu"
    """Name of the resource as which Kubernetes counts GPUs."""
    spot: bool = False
    """Whether the nodes are spot machines, which cost less and may be taken away."""
    idle_minutes: Minutes | None = None
    """Minutes after which an idle node is removed; by default the cluster's."""
    resources: dict[ResourceKey, Positive] = {}
    """Custom resources of Ray's nodes."""
    hosts: tuple[Host, ...] = ()
    """Host names or addresses of your own machines, for `ray up` without a cloud."""

    @property
    def size(self) -> GroupSize:
        """The largest size that the group may reach."""
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
    """Refuse two volumes of one name, or at one path.

    Raises:
        ValueError: two volumes have the same name or path.
    """
    names, paths = set[str](), set[str]()
    for volume in volumes:
        if volume.name in names or volume.path in paths:
            raise ValueError(
                f"volumes: two of them have the name {volume.name!r} or the path {volume.path!r}; keep one"
            )
        names.add(volume.name)
        paths.add(volume.path)
