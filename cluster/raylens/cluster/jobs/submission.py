"""A job as raylens submits it: what runs, with which code, how the cluster is asked for it. Nothing in it is secret."""

import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from raylens.cluster.driver_resources import Resources
from raylens.cluster.jobs.api import Job
from raylens.cluster.secrets import SETUP_HOOK, VARIABLE
from raylens.config import Node
from raylens.errors import ClusterError, ConfigError

__all__ = [
    "FILES_VARIABLE",
    "KEY",
    "WHEEL_VARIABLE",
    "Submission",
    "check_metadata",
    "next_id",
    "submitted",
]

KEY = "raylens.submission"
"""Of a job's metadata: the submission itself, from which the same job can be asked for again."""
WHEEL_VARIABLE = "RAYLENS_WHEEL"
FILES_VARIABLE = "RAYLENS_FILES"
MODULE = "raylens.workloads.job_entrypoint"
ATTEMPT = re.compile(r"(.+)-([1-9][0-9]*)")
RESERVED = re.compile(r"raylens\.|job_submission_id$|job_name$")


class Submission(Node):
    """Everything that decides what a job does."""

    command: tuple[str, ...]
    """The words after ``raylens``."""
    code: str | None = None
    """Name of the package with the wheel; None for the raylens of the cluster's image."""
    files: str | None = None
    """Name of the package with the files that the command names."""
    constraints: str | None = None
    """Name of the package with the versions for ``requirements``."""
    requirements: tuple[str, ...] = ()
    """What pip installs beside the wheel."""
    env: dict[str, str] = {}  # noqa: RUF012 (pydantic copies it)
    secrets: tuple[str, ...] = ()
    """References; see `raylens.cluster.secrets`."""
    resources: Resources = Resources()
    attempt: int = 1

    @property
    def packages(self) -> tuple[str, ...]:
        """Names of all that has to be on the cluster first."""
        return tuple(name for name in (self.code, self.files, self.constraints) if name is not None)

    @property
    def fingerprint(self) -> str:
        """Equal where the jobs are."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def differences(self, other: "Submission") -> list[str]:
        """Fields in which another one is not the same, with both values."""
        mine, theirs = self.model_dump(mode="json"), other.model_dump(mode="json")
        return [f"{name} {theirs[name]!r} then, {mine[name]!r} now" for name in mine if mine[name] != theirs[name]]

    def request(self, submission_id: str, metadata: Mapping[str, str]) -> dict[str, Any]:
        """For the Jobs API."""
        return {
            "submission_id": submission_id,
            "entrypoint": shlex.join(["python", "-m", MODULE, *self.command]),
            "runtime_env": self._runtime_env(),
            "metadata": {**metadata, KEY: self.model_dump_json()},
            **self.resources.request(),
        }

    def _runtime_env(self) -> dict[str, Any]:
        modules = [f"gcs://{name}" for name in (self.code, self.files) if name is not None]
        environment: dict[str, Any] = {"env_vars": self._variables()}
        if modules:
            environment["py_modules"] = modules
        if self.secrets:
            environment["worker_process_setup_hook"] = SETUP_HOOK
        if self.requirements:
            environment["pip"] = {"packages": list(self.requirements), "pip_check": False}
        if self.constraints is not None:
            # Where pip finds the versions: of Ray's two ways to bring files, the one whose place pip can be told.
            environment["working_dir"] = f"gcs://{self.constraints}"
        return environment

    def _variables(self) -> dict[str, str]:
        """Of all the job's processes: what was asked for, and what they know themselves by."""
        own = {
            WHEEL_VARIABLE: _stem(self.code),
            FILES_VARIABLE: _stem(self.files),
            VARIABLE: json.dumps(self.secrets) if self.secrets else None,
        }
        return {**self.env, **{name: value for name, value in own.items() if value is not None}}


def submitted(job: Job) -> Submission:
    """What a job was submitted as.

    Raises:
        ClusterError: it was not submitted by raylens, or by one that wrote it down in another way.
    """
    text = (job.metadata or {}).get(KEY)
    if text is None:
        raise ClusterError(f"job {job.submission_id!r} was not submitted by raylens: {job.entrypoint!r}")
    try:
        return Submission.model_validate_json(text)
    except ValidationError:
        raise ClusterError(
            f"job {job.submission_id!r} was submitted by another version of raylens: submit it anew"
        ) from None


def next_id(submission_id: str, attempt: int) -> str:
    """The id of a job's attempt, the first of which has the plain one: ``mine``, ``mine-2``, ``mine-3``."""
    found = ATTEMPT.fullmatch(submission_id)
    first = found[1] if found and attempt > 2 and int(found[2]) == attempt - 1 else submission_id
    return f"{first}-{attempt}"


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Refuse keys that mean something else.

    Raises:
        ConfigError: there is one.
    """
    for key in metadata:
        if RESERVED.match(key):
            raise ConfigError(f"--metadata {key}: raylens and Ray set keys that begin like this; choose another")


def _stem(name: str | None) -> str | None:
    return None if name is None else name.removesuffix(".zip")
