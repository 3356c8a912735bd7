"""Volumes, credentials and tolerated taints of a node of the cluster."""
# ruff: noqa: RUF012 (pydantic copies mutable defaults)

from typing import Literal, Self

from pydantic import model_validator

from raylens.cluster.description.fields import (
    AbsolutePath,
    LabelKey,
    LabelText,
    Name,
    Quantity,
    ResourceName,
    SecretKeys,
)
from raylens.config import Node

__all__ = ["RESERVED_PATHS", "CredentialsSpec", "TolerationSpec", "VolumeSpec"]

RESERVED_PATHS = ("/dev/shm", "/tmp/ray", "/etc/raylens/job")  # noqa: S108 (Ray's objects and session, a job's files)
RESERVED_NAMES = ("shared-mem", "ray-logs", "job-files")
SOURCES = ("claim", "empty", "secret", "host")


class VolumeSpec(Node):
    """A folder that a node mounts: a claim of Kubernetes, an empty folder, a Secret, or a folder of its machine."""

    name: Name
    path: AbsolutePath
    """The path at which the node mounts the volume."""
    claim: ResourceName | None = None
    """Claim of an existing persistent volume. Groups of several nodes need one that many nodes may mount."""
    empty: Quantity | None = None
    """Size limit of an empty folder, which is deleted with the node."""
    secret: ResourceName | None = None
    """A Secret of Kubernetes: a read-only file for each key."""
    host: AbsolutePath | None = None
    """A folder of the machine. On Kubernetes it needs ``kubernetes.host_paths: true``, because it weakens the
    container's isolation."""
    read_only: bool = False

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        sources = [name for name in SOURCES if getattr(self, name) is not None]
        if len(sources) != 1:
            raise ValueError(
                f"volume {self.name!r} has {' and '.join(sources) or 'no source'}: give one of {', '.join(SOURCES)}"
            )
        if self.path in RESERVED_PATHS or any(self.path.startswith(f"{path}/") for path in RESERVED_PATHS):
            raise ValueError(f"volume {self.name!r}: path = {self.path!r} is Ray's own; choose another")
        if self.name in RESERVED_NAMES:
            raise ValueError(f"volume {self.name!r} is a name of raylens' own; choose another")
        return self


class CredentialsSpec(Node):
    """Environment variables from a Secret of Kubernetes, which is named but never written out."""

    secret: ResourceName
    keys: SecretKeys = {}
    """Names of variables and the keys with their values; without any, each key is the name of its variable."""


class TolerationSpec(Node):
    """A taint of Kubernetes' nodes that the pods tolerate."""

    key: LabelKey
    value: LabelText | None = None
    """Value of the taint; by default any."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint; by default any."""
