"""What a node of the cluster is given: volumes, credentials, tolerated taints."""
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
    """A folder that a node sees: a claim of Kubernetes, an empty one of its own, a Secret, or one of its machine."""

    name: Name
    path: AbsolutePath
    """Where the node sees it."""
    claim: ResourceName | None = None
    """Of a persistent volume that exists. Groups of several nodes need one that many nodes may mount."""
    empty: Quantity | None = None
    """The most that may lie in it; it goes with the node."""
    secret: ResourceName | None = None
    """A Secret of Kubernetes, a file for each key; only to read."""
    host: AbsolutePath | None = None
    """A folder of the machine. On Kubernetes it needs ``kubernetes.host_paths: true``, because it is a way out of the
    container."""
    read_only: bool = False

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"volume {self.name!r} has {' and '.join(given) or 'no source'}: give one of {', '.join(SOURCES)}"
            )
        if self.path in RESERVED_PATHS or any(self.path.startswith(f"{one}/") for one in RESERVED_PATHS):
            raise ValueError(f"volume {self.name!r}: path = {self.path!r} is Ray's own; choose another")
        if self.name in RESERVED_NAMES:
            raise ValueError(f"volume {self.name!r} is a name of raylens' own; choose another")
        return self


class CredentialsSpec(Node):
    """Environment variables from a Secret of Kubernetes, which is named here and nowhere written out."""

    secret: ResourceName
    keys: SecretKeys = {}
    """Names of variables and the keys that have their values; without any, each key is the name of its variable."""


class TolerationSpec(Node):
    """A taint of Kubernetes' nodes that the pods do not mind."""

    key: LabelKey
    value: LabelText | None = None
    """Unset, any value."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Unset, any effect."""
