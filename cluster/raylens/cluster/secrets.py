"""Secrets by reference: names and places travel with a job, values never leave the nodes that hold them.

A value is read by each process on its own node, just before it is used: by the driver when it begins, and by every
worker in Ray's setup hook, `provide`. What the dashboard shows of a job is the reference alone.
"""

import json
import os
import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, get_args

from raylens.errors import ClusterError

__all__ = ["SETUP_HOOK", "VARIABLE", "SecretReference", "check_nodes", "missing", "provide", "references"]

Kind = Literal["env", "file", "path"]
VARIABLE = "RAYLENS_SECRETS"
"""Holds a job's references, a JSON list, in the environment of its processes."""
SETUP_HOOK = "raylens.cluster.secrets.provide"
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
FORMS = "write NAME (a variable that the nodes have), NAME=env:OTHER, NAME=file:/path or NAME=path:/path"


@dataclass(frozen=True)
class SecretReference:
    """A variable that a job's processes get, and where each finds its value on the node that it runs on."""

    name: str
    kind: Kind
    place: str
    """Another variable's name; or a file, whose content (``file``) or whose path (``path``) is the value."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """``NAME``, ``NAME=env:OTHER``, ``NAME=file:/path`` or ``NAME=path:/path``.

        Raises:
            ValueError: it is none of these; the message repeats nothing that may be a value.
        """
        name, given, reference = text.partition("=")
        kind, _, place = reference.partition(":") if given else ("env", ":", name)
        if not NAME.fullmatch(name):
            raise ValueError(f"a secret's name is that of a variable; {FORMS}")
        for known in get_args(Kind):
            if kind == known and (NAME.fullmatch(place) if kind == "env" else place.startswith("/")):
                return cls(name, known, place)
        raise ValueError(f"secret {name}: after '=' goes where the nodes have it, never the value; {FORMS}")

    def __str__(self) -> str:
        return self.name if (self.kind, self.place) == ("env", self.name) else f"{self.name}={self.kind}:{self.place}"

    def value(self, environment: Mapping[str, str]) -> str | None:
        """Its value on this machine; None where it is not there, or empty."""
        if self.kind == "env":
            return environment.get(self.place) or None
        try:
            content = Path(self.place).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError):
            return None
        return (content if self.kind == "file" else self.place) if content else None

    @property
    def wanted(self) -> str:
        """What has to be there."""
        return f"the variable {self.place}" if self.kind == "env" else f"the file {self.place}, readable and not empty"


def references(environment: Mapping[str, str]) -> tuple[SecretReference, ...]:
    """Of the job that this process belongs to."""
    return tuple(SecretReference.parse(text) for text in json.loads(environment.get(VARIABLE) or "[]"))


def missing(secrets: Iterable[SecretReference], environment: Mapping[str, str]) -> list[str]:
    """Sentences about those that this machine does not have."""
    return [
        f"secret {secret.name} is missing on node {socket.gethostname()}: {secret.wanted} is not there; give it to the "
        "nodes, on Kubernetes as a Secret of every group"
        for secret in secrets
        if secret.value(environment) is None
    ]


def provide() -> None:
    """Put the job's secrets into this process's environment.

    Raises:
        ClusterError: this node does not have one of them.
    """
    secrets = references(os.environ)
    found = missing(secrets, os.environ)
    if found:
        raise ClusterError("; ".join(found))
    # First all, then set: one may be named like the place of another.
    os.environ.update({secret.name: secret.value(os.environ) or "" for secret in secrets})


def check_nodes() -> None:
    """Look on every node that is up; Ray must be initialised. Ray would start a worker that lacks one again and again.

    Raises:
        ClusterError: a node does not have one of the job's secrets.
    """
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    secrets = references(os.environ)
    # Without the variable the hook lets these processes begin, so that they can say what is missing.
    options = {"num_cpus": 0, "max_retries": 0, "runtime_env": {"env_vars": {VARIABLE: "[]"}}}
    look = ray.remote(**options)(_missing_here)
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    places = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes]
    asked = [look.options(scheduling_strategy=place).remote(secrets) for place in places]
    found: list[str] = []
    for answer in asked:
        try:
            found += ray.get(answer)
        except RayError:
            continue  # the node is gone: nothing of the job will be there
    if found:
        raise ClusterError("; ".join(dict.fromkeys(found)))


def _missing_here(secrets: tuple[SecretReference, ...]) -> list[str]:
    return missing(secrets, os.environ)
