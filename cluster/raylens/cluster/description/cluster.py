"""A cluster of Ray, described once; its manifests for Kubernetes and its file for `ray up` follow from it."""
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
from raylens.errors import ConfigError
from raylens.placement import GROUPS, Group

__all__ = ["ClusterSpec", "load_spec"]

LONGEST_NAME = 41
"""KubeRay takes 47 characters for a job or a service; ``-serve`` is added here."""


def _cluster_name(name: str) -> str:
    if not name[0].isalpha() or len(name) > LONGEST_NAME:
        raise ValueError(f"begin with a letter, and write at most {LONGEST_NAME} characters")
    return name


class ClusterSpec(Node):
    """A head, and groups that decode, train and serve."""

    name: Annotated[Name, AfterValidator(_cluster_name)]
    image: Image
    """Of every node that names no other; with raylens in it, see docker/Dockerfile."""
    ray_version: Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$")] = version("ray")
    """Of the image; unset, of the raylens that renders."""
    head: HeadSpec
    decode: GroupSpec | None = None
    """CPU nodes: they read, decode and tokenise."""
    train: GroupSpec | None = None
    """They hold the training workers."""
    serve: GroupSpec | None = None
    """They hold the replicas of the embedding API."""
    idle_minutes: Minutes = 5.0
    """Before the autoscaler takes an idle node away."""
    niceness: Niceness = 0
    """Of Ray's workers, 15 by Ray's own default: more, where other processes of a machine or a pod go first."""
    env: Environment = {}
    """Of all nodes."""
    credentials: tuple[CredentialsSpec, ...] = ()
    """Of all nodes, for the object store: Secrets of Kubernetes, by name."""
    volumes: tuple[VolumeSpec, ...] = ()
    """Of all nodes."""
    kubernetes: KubernetesSpec = KubernetesSpec()
    launcher: LauncherSpec | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.groups:
            raise ValueError("no group: describe one at least of decode, train and serve; nothing runs on the head")
        for _, machine in self.machines():
            check_volumes(self.volumes_of(machine))
            self._check_variables(machine)
        return self

    def _check_variables(self, machine: MachineSpec) -> None:
        seen = {**self.env, **machine.env}
        for one in self.credentials:
            for name in one.keys:
                if name in seen:
                    raise ValueError(f"credentials: {name} of the Secret {one.secret!r} is given twice; keep one")
            seen |= one.keys

    @property
    def groups(self) -> dict[Group, GroupSpec]:
        """Those that are described."""
        found = {name: getattr(self, name) for name in GROUPS}
        return {name: group for name, group in found.items() if group is not None}

    @property
    def token_secret(self) -> str:
        """The name of the Secret that has Ray's token."""
        return self.kubernetes.token_secret or f"{self.name}-token"

    def machines(self) -> Iterator[tuple[str, MachineSpec]]:
        """The head and the groups, by name."""
        yield "head", self.head
        yield from self.groups.items()

    def image_of(self, machine: MachineSpec) -> str:
        """Its own, or the cluster's."""
        return machine.image or self.image

    def volumes_of(self, machine: MachineSpec) -> tuple[VolumeSpec, ...]:
        """The cluster's and its own."""
        return (*self.volumes, *machine.volumes)


def load_spec(file: Path) -> ClusterSpec:
    """A cluster's description from its file.

    Raises:
        ConfigError: there is no such file, it is no YAML, or it describes no cluster; the message names the field, its
            value and what to do.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{file}: there is no such file; `raylens cluster init {file}` writes an example") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from None
    try:
        return validated(ClusterSpec, load_yaml(text, str(file)))
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}" if str(file) not in str(error) else str(error)) from None
