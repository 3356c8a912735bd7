"""From options and a context to a submitted job, and from a job to what is shown of it."""

import getpass
import json
import os
import secrets
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.table import Table

from raylens.cluster import Resources, check_text, check_variables
from raylens.cluster.jobs import (
    KEY,
    Job,
    Jobs,
    Outcome,
    Package,
    Submission,
    Wheel,
    build_wheel,
    check_metadata,
    check_version,
    file_package,
    pinned,
    revision,
)
from raylens.cluster.jobs.checkout import checkout
from raylens.cluster.jobs.submit import submit
from raylens.errors import ConfigError
from raylens.names import JOB_ID
from raylens.workloads.pages.tables import Page, add_row, pairs_table
from raylens.workloads.submit.command import JobCommand

__all__ = ["JobRequest", "list_page", "show_page", "submit_request"]

SHOWN_COMMAND = 60


@dataclass(frozen=True)
class JobRequest:
    """Everything that a user asks for when submitting a job."""

    command: JobCommand
    submission_id: str | None = None
    code: str = "wheel"
    source: Path | None = None
    extras: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: Sequence[str] = ()
    resources: Resources = field(default_factory=Resources)
    metadata: Mapping[str, str] = field(default_factory=dict)


def submit_request(jobs: Jobs, request: JobRequest, say: Any) -> Outcome:
    """Check a request, build its packages, and submit it.

    Raises:
        ConfigError: a part of the request is invalid.
        ClusterError: the wheel does not build; or the cluster does not answer, refuses, or has another job of that ID.
    """
    submission_id = JOB_ID.check("--id", request.submission_id or f"{request.command.name}-{secrets.token_hex(4)}")
    check_metadata(request.metadata)
    _check_leaks(request)
    check_version(jobs, version("ray"))
    folder, wheel = _code(request)
    packages, submission = _packed(request, folder, wheel)
    outcome = submit(jobs, submission_id, submission, packages, _metadata(request, folder, wheel))
    brought = f"; uploaded {', '.join(outcome.uploaded)}" if outcome.uploaded else ""
    say(f"{'submitted' if outcome.new else 'is there already'}: {submission_id} on {jobs}{brought}")
    return outcome


def _check_leaks(request: JobRequest) -> None:
    check_variables(request.env)
    check_text("the command", request.command.words, os.environ)
    check_text("--env", request.env.values(), os.environ)
    check_text("--metadata", request.metadata.values(), os.environ)
    for name, data in request.command.files.items():
        check_text(name, [data.decode(errors="replace")], os.environ)


def _code(request: JobRequest) -> tuple[Path | None, Wheel | None]:
    if request.code == "image":
        if request.extras or request.source is not None:
            raise ConfigError("--code image runs what the image has: --extra and --source go with --code wheel")
        return None, None
    if request.code != "wheel":
        raise ConfigError(f"--code {request.code}: it must be wheel or image")
    folder = checkout(request.source)
    return folder, build_wheel(folder)


def _packed(request: JobRequest, folder: Path | None, wheel: Wheel | None) -> tuple[list[Package], Submission]:
    files = file_package(request.command.files) if request.command.files else None
    extras = pinned(folder, request.extras) if folder is not None else None
    submission = Submission(
        command=request.command.words,
        code=wheel.package.name if wheel else None,
        files=files.name if files else None,
        constraints=extras.constraints.name if extras else None,
        requirements=extras.requirements if extras else (),
        env=dict(request.env),
        secrets=tuple(request.secrets),
        resources=request.resources,
    )
    packages = [wheel.package if wheel else None, files, extras.constraints if extras else None]
    return [package for package in packages if package is not None], submission


def _metadata(request: JobRequest, folder: Path | None, wheel: Wheel | None) -> dict[str, str]:
    """Return facts about a job, none of them secret, for its metadata."""
    facts = {
        "raylens.command": shlex.join(["raylens", *request.command.words]),
        "raylens.user": getpass.getuser(),
        "raylens.version": wheel.version if wheel else "of the image",
        "raylens.wheel": f"sha256:{wheel.package.digest}" if wheel else None,
        "raylens.revision": revision(folder) if folder is not None else None,
        "raylens.config": f"sha256:{request.command.config_hash}" if request.command.config_hash else None,
    }
    return {**request.metadata, **{name: value for name, value in facts.items() if value is not None}}


def list_page(jobs: Sequence[Job], as_json: bool) -> Page:
    """Yield a table of jobs, or a line of JSON."""
    if as_json:
        yield json.dumps([_plain(job) for job in jobs])
        return
    table = Table("id", "status", "began", "took", "user", "command")
    for job in jobs:
        facts = job.metadata or {}
        command = facts.get("raylens.command", job.entrypoint)
        short = command if len(command) <= SHOWN_COMMAND else f"{command[:SHOWN_COMMAND]}..."
        add_row(
            table,
            str(job.submission_id),
            job.status,
            _time(job.start_time),
            _took(job),
            facts.get("raylens.user", ""),
            short,
        )
    yield table


def show_page(job: Job, as_json: bool) -> Page:
    """Yield everything that is known about a job."""
    if as_json:
        yield json.dumps(_plain(job))
        return
    driver = job.driver_info or {}
    rows = {
        "status": job.status + (f", exit status {job.driver_exit_code}" if job.driver_exit_code is not None else ""),
        "message": (job.message or "").strip(),
        "began": _time(job.start_time),
        "took": _took(job),
        "driver": f"{driver.get('node_ip_address', '')} pid {driver.get('pid', '')}" if driver else "",
        "node": job.driver_node_id or "",
        "entrypoint": job.entrypoint,
        **{name: value for name, value in sorted((job.metadata or {}).items()) if name != KEY},
    }
    yield pairs_table(str(job.submission_id), {name: value for name, value in rows.items() if value})


def _plain(job: Job) -> dict[str, Any]:
    return job.model_dump(mode="json", exclude={"metadata"}) | {"metadata": job.metadata or {}}


def _time(milliseconds: int | None) -> str:
    if not milliseconds:
        return ""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _took(job: Job) -> str:
    if not job.start_time:
        return ""
    end = job.end_time / 1000 if job.end_time else datetime.now(UTC).timestamp()
    return f"{end - job.start_time / 1000:.0f} s"
