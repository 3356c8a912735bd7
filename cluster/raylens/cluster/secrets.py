"""Secrets by reference: a job carries their names and locations; the values never leave the nodes that hold them.

Each process reads a value on its own node, just before it is used: the driver when it begins, and every worker in
Ray's setup hook, `provide`. The dashboard shows only the references.
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
"""The variable with a job's references, a JSON list, in the environment of its processes."""
SETUP_HOOK = "raylens.cluster.secrets.provide"
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
FORMS = "write NAME (a variable that the nodes have), NAME=env:OTHER, NAME=file:/path or NAME=path:/path"


@dataclass(frozen=True)
class SecretReference:
    """A variable that a job's processes get, and the location of its value on each node."""

    name: str
    kind: Kind
    location: str
    """The name of another variable; or a file, whose content (``file``) or path (``path``) is the value."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``NAME``, ``NAME=env:OTHER``, ``NAME=file:/path`` or ``NAME=path:/path``.

        Raises:
            ValueError: the text has none of these forms; the message repeats nothing that may be a value.
        """
        name, equals, reference = text.partition("=")
        kind, _, location = reference.partition(":") if equals else ("env", ":", name)
        if not NAME.fullmatch(name):
            raise ValueError(f"the name of a secret must be the name of a variable; {FORMS}")
        for known in get_args(Kind):
            if kind == known and (NAME.fullmatch(location) if kind == "env" else location.startswith("/")):
                return cls(name, known, location)
        raise ValueError(f"secret {name}: after '=' write its location on the nodes, never its value; {FORMS}")

    def __str__(self) -> str:
        plain = (self.kind, self.location) == ("env", self.name)
        return self.name if plain else f"{self.name}={self.kind}:{self.location}"

    def value(self, environment: Mapping[str, str]) -> str | None:
        """Return the secret's value on this machine; None if it is missing or empty."""
        if self.kind == "env":
            return environment.get(self.location) or None
        try:
            content = Path(self.location).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError):
            return None
        return (content if self.kind == "file" else self.location) if content else None

    @property
    def requirement(self) -> str:
        """Describe for messages what a node must have."""
        readable = f"the file {self.location}, readable and not empty"
        return f"the variable {self.location}" if self.kind == "env" else readable


def references(environment: Mapping[str, str]) -> tuple[SecretReference, ...]:
    """Return the references of the job that this process belongs to."""
    return tuple(SecretReference.parse(text) for text in json.loads(environment.get(VARIABLE) or "[]"))


def missing(secrets: Iterable[SecretReference], environment: Mapping[str, str]) -> list[str]:
    """Return a sentence for each secret that this machine does not have."""
    return [
        f"secret {secret.name} is missing on node {socket.gethostname()}: it needs {secret.requirement}; give it to "
        "the nodes, on Kubernetes as a Secret of every group"
        for secret in secrets
        if secret.value(environment) is None
    ]


def provide() -> None:
    """Put the job's secrets into this process's environment.

    Raises:
        ClusterError: this node lacks one of them.
    """
    secrets = references(os.environ)
    problems = missing(secrets, os.environ)
    if problems:
        raise ClusterError("; ".join(problems))
    # All values are read before any is set: a secret may have the name of the variable that another one is read from.
    os.environ.update({secret.name: secret.value(os.environ) or "" for secret in secrets})


def check_nodes() -> None:
    """Check that every live node has the job's secrets; Ray must be initialised.

    Without this check, Ray would restart a worker that lacks a secret again and again.

    Raises:
        ClusterError: a node lacks one of the job's secrets.
    """
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    secrets = references(os.environ)
    # Without the variable, the hook lets these processes start, so that they can report what is missing.
    options = {"num_cpus": 0, "max_retries": 0, "runtime_env": {"env_vars": {VARIABLE: "[]"}}}
    check = ray.remote(**options)(_missing_here)
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    strategies = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes]
    answers = [check.options(scheduling_strategy=strategy).remote(secrets) for strategy in strategies]
    problems: list[str] = []
    for answer in answers:
        try:
            problems += ray.get(answer)
        except RayError:
            continue  # the node is gone: nothing of the job will run there
    if problems:
        raise ClusterError("; ".join(dict.fromkeys(problems)))


def _missing_here(secrets: tuple[SecretReference, ...]) -> list[str]:
    return missing(secrets, os.environ)
