"""A job as raylens submits it: its command, its code, and the request to the cluster. Nothing in it is secret."""

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
    "check_id",
    "check_metadata",
    "next_id",
    "submitted",
]

KEY = "raylens.submission"
"""The key of a job's metadata that holds the submission itself, from which the job can be submitted again."""
WHEEL_VARIABLE = "RAYLENS_WHEEL"
FILES_VARIABLE = "RAYLENS_FILES"
MODULE = "raylens.workloads.job_entrypoint"
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
ATTEMPT = re.compile(r"(.+)-([1-9][0-9]*)")
RESERVED = re.compile(r"raylens\.|job_submission_id$|job_name$")


class Submission(Node):
    """Everything that determines what a job does."""

    command: tuple[str, ...]
    """The words of the command after ``raylens``."""
    code: str | None = None
    """Name of the package that holds the wheel; None for the raylens of the cluster's image."""
    files: str | None = None
    """Name of the package that holds the files of the command."""
    constraints: str | None = None
    """Name of the package that holds the versions for ``requirements``."""
    requirements: tuple[str, ...] = ()
    """Requirements that pip installs in addition to the wheel."""
    env: dict[str, str] = {}  # noqa: RUF012 (pydantic copies it)
    secrets: tuple[str, ...] = ()
    """References to secrets; see `raylens.cluster.secrets`."""
    resources: Resources = Resources()
    attempt: int = 1

    @property
    def packages(self) -> tuple[str, ...]:
        """Names of the packages that the cluster must have first."""
        return tuple(name for name in (self.code, self.files, self.constraints) if name is not None)

    @property
    def fingerprint(self) -> str:
        """A hash that is equal for equal submissions."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def differences(self, other: "Submission") -> list[str]:
        """List the fields in which another submission differs, with both values."""
        mine, theirs = self.model_dump(mode="json"), other.model_dump(mode="json")
        return [f"{name} {theirs[name]!r} then, {mine[name]!r} now" for name in mine if mine[name] != theirs[name]]

    def request(self, submission_id: str, metadata: Mapping[str, str]) -> dict[str, Any]:
        """Return the request that starts the job through the Jobs API."""
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
            # pip finds the versions here: of Ray's two kinds of uploaded folders, only this one's path is known to pip.
            environment["working_dir"] = f"gcs://{self.constraints}"
        return environment

    def _variables(self) -> dict[str, str]:
        """Return the variables of the job's processes: the submission's own, and the names of its packages."""
        own = {
            WHEEL_VARIABLE: _stem(self.code),
            FILES_VARIABLE: _stem(self.files),
            VARIABLE: json.dumps(self.secrets) if self.secrets else None,
        }
        return {**self.env, **{name: value for name, value in own.items() if value is not None}}


def submitted(job: Job) -> Submission:
    """Return the submission of a job.

    Raises:
        ClusterError: the job was not submitted by raylens, or by a version with another form of submissions.
    """
    text = (job.metadata or {}).get(KEY)
    if text is None:
        raise ClusterError(f"job {job.submission_id!r} was not submitted by raylens: {job.entrypoint!r}")
    try:
        return Submission.model_validate_json(text)
    except ValidationError:
        raise ClusterError(
            f"job {job.submission_id!r} has the submission of another raylens: submit the command again"
        ) from None


def next_id(submission_id: str, attempt: int) -> str:
    """Return the ID of a job's next attempt: ``mine``, ``mine-2``, ``mine-3``."""
    match = ATTEMPT.fullmatch(submission_id)
    first = match[1] if match and attempt > 2 and int(match[2]) == attempt - 1 else submission_id
    return f"{first}-{attempt}"


def check_id(submission_id: str) -> str:
    """Return an ID if it is valid.

    Raises:
        ConfigError: the ID has characters that it may not have, or is too long.
    """
    if not ID.fullmatch(submission_id):
        raise ConfigError(
            f"--id {submission_id!r}: an ID has at most 100 letters, digits, '.', '_' and '-', and begins with a "
            "letter or a digit"
        )
    return submission_id


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Refuse keys of metadata that raylens or Ray use themselves.

    Raises:
        ConfigError: there is such a key.
    """
    for key in metadata:
        if RESERVED.match(key):
            raise ConfigError(
                f"--metadata {key}: raylens and Ray use keys with this beginning themselves; choose another"
            )


def _stem(name: str | None) -> str | None:
    return None if name is None else name.removesuffix(".zip")
