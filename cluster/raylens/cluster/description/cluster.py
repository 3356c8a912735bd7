"""The description of a Ray cluster, from which manifests for Kubernetes and the file for `ray up` are rendered."""
# ruff: noqa: RUF012 (pydantic copies mutable defaults)

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from raylens.cluster.description.fields import Environment, Image, Minutes, Name, Niceness
from raylens.cluster.description.kubernetes import KubernetesSpec
from raylens.cluster.description.launcher import LauncherSpec
from raylens.cluster.description.machines import GroupSpec, HeadSpec, MachineSpec, check_volumes
from raylens.cluster.description.pods import CredentialsSpec, VolumeSpec
from raylens.config import Node, load_yaml, validated
from raylens.config.placement import GROUPS, Group
from raylens.errors import ConfigError

__all__ = ["ClusterSpec", "load_spec"]

LONGEST_NAME = 41
"""The longest name: KubeRay allows 47 characters for a job or a service, and ``-serve`` is appended here."""


def _cluster_name(name: str) -> str:
    if not name[0].isalpha() or len(name) > LONGEST_NAME:
        raise ValueError(f"begin with a letter, and write at most {LONGEST_NAME} characters")
    return name


class ClusterSpec(Node):
    """A cluster with a head, and with groups of nodes that decode, train and serve."""

    name: Annotated[Name, AfterValidator(_cluster_name)]
    image: Image
    """Image of every node that names no other; it contains raylens, see docker/Dockerfile."""
    ray_version: Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$")] = version("ray")
    """Version of Ray in the image; by default that of the raylens that renders."""
    head: HeadSpec
    decode: GroupSpec | None = None
    """CPU nodes that read, decode and tokenise."""
    train: GroupSpec | None = None
    """Nodes that hold the training workers."""
    serve: GroupSpec | None = None
    """Nodes that hold the replicas of the embedding API."""
    idle_minutes: Minutes = 5.0
    """Minutes after which the autoscaler removes an idle node."""
    niceness: Niceness = 0
    """Niceness of Ray's workers (Ray's own default is 15); raise it where other processes of the machine come first."""
    env: Environment = {}
    """Environment variables of all nodes."""
    credentials: tuple[CredentialsSpec, ...] = ()
    """Secrets of Kubernetes, by name, from which all nodes get the object store's credentials."""
    volumes: tuple[VolumeSpec, ...] = ()
    """Volumes that all nodes mount."""
    kubernetes: KubernetesSpec = KubernetesSpec()
    launcher: LauncherSpec | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.groups:
            raise ValueError(
                "no group: describe at least one of decode, train and serve; no work is placed on the head"
            )
        for _, machine in self.machines():
            check_volumes(self.volumes_of(machine))
            self._check_variables(machine)
        return self

    def _check_variables(self, machine: MachineSpec) -> None:
        seen = {**self.env, **machine.env}
        for credentials in self.credentials:
            for name in credentials.keys:
                if name in seen:
                    raise ValueError(f"credentials: {name} of the Secret {credentials.secret!r} is set twice; keep one")
            seen |= credentials.keys

    @property
    def groups(self) -> dict[Group, GroupSpec]:
        """The groups that are described, by name."""
        described = {name: getattr(self, name) for name in GROUPS}
        return {name: group for name, group in described.items() if group is not None}

    @property
    def token_secret(self) -> str:
        """The name of the Secret that holds Ray's token."""
        return self.kubernetes.token_secret or f"{self.name}-token"

    def machines(self) -> Iterator[tuple[str, MachineSpec]]:
        """Yield the head and the groups, with their names."""
        yield "head", self.head
        yield from self.groups.items()

    def image_of(self, machine: MachineSpec) -> str:
        """Return a machine's own image, or the cluster's."""
        return machine.image or self.image

    def volumes_of(self, machine: MachineSpec) -> tuple[VolumeSpec, ...]:
        """Return the cluster's volumes and the machine's own."""
        return (*self.volumes, *machine.volumes)


def load_spec(file: Path) -> ClusterSpec:
    """Read a cluster's description from its file.

    Raises:
        ConfigError: the file does not exist, is not YAML, or does not describe a cluster; the message names the field,
            its value and the fix.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{file} does not exist; `raylens cluster init {file}` writes an example") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from None
    try:
        return validated(ClusterSpec, load_yaml(text, str(file)))
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}" if str(file) not in str(error) else str(error)) from None
