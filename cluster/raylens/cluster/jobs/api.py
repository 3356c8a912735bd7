"""A client of a cluster's Jobs API over HTTP, whose errors are one line each.

It replaces Ray's own client, which lets RAY_ADDRESS override the address it was created with, takes its token from the
environment of the whole process, and waits for ever if nobody answers.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from raylens.cluster.contexts import ClusterContext
from raylens.cluster.jobs.package import Package
from raylens.cluster.text import last_line
from raylens.errors import ClusterError, UnansweredError

__all__ = ["Job", "Jobs"]

ANSWER_SECONDS = 30.0
CONNECT_SECONDS = 10.0
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


class Job(BaseModel):
    """A job as the cluster reports it. Fields that raylens does not know are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    submission_id: str | None = None
    type: str = "SUBMISSION"
    status: str
    entrypoint: str = ""
    message: str | None = None
    error_type: str | None = None
    start_time: int | None = None
    """Milliseconds between 1970 and the start of the driver."""
    end_time: int | None = None
    metadata: dict[str, str] | None = None
    runtime_env: dict[str, Any] | None = None
    driver_exit_code: int | None = None
    driver_node_id: str | None = None
    driver_info: dict[str, Any] | None = None

    @property
    def ended(self) -> bool:
        """Whether the job's status is final."""
        return self.status in ENDED


class Jobs:
    """The Jobs API of one cluster, as a context manager that closes its connections."""

    def __init__(self, name: str, context: ClusterContext, transport: httpx.BaseTransport | None = None) -> None:
        self.name, self.address = name, context.address
        self._token, self._token_source = context.token(), context.token_source
        self.verify: bool | str = context.ca_file or context.verify
        try:
            self._client = httpx.Client(
                base_url=context.address,
                headers=self.headers,
                verify=self.verify,
                timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
                transport=transport,
            )
        except OSError as error:
            raise ClusterError(f"{self}: cannot read ca_file = {context.ca_file!r}: {error}") from None

    def __str__(self) -> str:
        return self.address if self.name == self.address else f"cluster {self.name!r} at {self.address}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    @property
    def headers(self) -> dict[str, str]:
        """The headers that authenticate this client."""
        return {} if self._token is None else {"authorization": f"Bearer {self._token}"}

    def ray_version(self) -> str:
        """Return the cluster's version of Ray. Call it first: it checks the address and the token.

        Raises:
            UnansweredError: nobody answers.
            ClusterError: the token is refused, or what answers is not Ray.
        """
        version = self._json("GET", "/api/version").get("ray_version")
        if not isinstance(version, str):
            raise ClusterError(f"{self} answers, but not like a Ray dashboard: is the address right?")
        return version

    def find(self, submission_id: str) -> Job | None:
        """Return the job with an ID; None if the cluster has no such job."""
        answer = self._ask("GET", f"/api/jobs/{quote(submission_id, safe='')}")
        return None if answer.status_code == httpx.codes.NOT_FOUND else self._job(self._read(answer))

    def get(self, submission_id: str) -> Job:
        """Return the job with an ID.

        Raises:
            ClusterError: the cluster has no such job.
        """
        job = self.find(submission_id)
        if job is None:
            raise ClusterError(f"{self} has no job {submission_id!r}; `raylens jobs list` lists them")
        return job

    def all(self) -> list[Job]:
        """Return all submitted jobs, the newest first; drivers that were started in other ways are left out."""
        listed = self._read(self._ask("GET", "/api/jobs/"))
        jobs = [self._job(tree) for tree in listed] if isinstance(listed, list) else []
        return sorted((job for job in jobs if job.submission_id), key=lambda job: job.start_time or 0, reverse=True)

    def submit(self, request: Mapping[str, Any]) -> bool:
        """Start a job; return False if the cluster already had a job with its ID."""
        answer = self._ask("POST", "/api/jobs/", json=dict(request))
        if answer.is_error and "already exists" in answer.text:
            return False
        self._read(answer)
        return True

    def stop(self, submission_id: str) -> None:
        """Ask a job to stop; return before it has stopped."""
        self._read(self._ask("POST", f"/api/jobs/{quote(submission_id, safe='')}/stop"))

    def logs(self, submission_id: str) -> str:
        """Return everything that a job has printed."""
        return str(self._json("GET", f"/api/jobs/{quote(submission_id, safe='')}/logs").get("logs", ""))

    def has(self, package_name: str) -> bool:
        """Return whether the cluster holds a package, which it then keeps for some more minutes."""
        answer = self._ask("GET", f"/api/packages/gcs/{quote(package_name, safe='')}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return False
        if answer.is_error:
            self._read(answer)
        return True

    def upload(self, package: Package) -> bool:
        """Upload a package unless the cluster has it; return whether it was uploaded."""
        if self.has(package.name):
            return False
        answer = self._ask("PUT", f"/api/packages/gcs/{quote(package.name, safe='')}", content=package.data)
        if answer.is_error:
            self._read(answer)
        return True

    def put(self, path: str, tree: Mapping[str, Any]) -> None:
        """Write ``tree`` to ``path`` of the dashboard's API."""
        answer = self._ask("PUT", path, json=dict(tree))
        if answer.is_error:
            self._read(answer)

    def delete(self, path: str) -> None:
        """Delete ``path`` of the dashboard's API."""
        answer = self._ask("DELETE", path)
        if answer.is_error:
            self._read(answer)

    def read(self, path: str) -> Any:
        """Return the JSON at ``path`` of the dashboard's API."""
        return self._read(self._ask("GET", path))

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn the errors of connections inside the block into errors of one line."""
        try:
            yield
        except httpx.TimeoutException:
            raise UnansweredError(f"no answer from {self}: {_REACH}") from None
        except (httpx.TransportError, OSError) as error:
            if "CERTIFICATE" in str(error).upper():
                raise ClusterError(
                    f"the TLS certificate of {self} could not be verified: {error}; set ca_file in its context"
                ) from None
            raise UnansweredError(f"no answer from {self} ({error}): {_REACH}") from None

    def _ask(self, method: str, path: str, **content: Any) -> httpx.Response:
        with self.explained():
            answer = self._client.request(method, path, **content)
        self.refused(answer.status_code)
        if answer.is_redirect:
            raise ClusterError(
                f"{self} redirects to {answer.headers.get('location', 'elsewhere')}: is it behind a login?"
            )
        return answer

    def refused(self, status: int) -> None:
        """Raise an error if an answer's status says that the token is wrong."""
        if status == httpx.codes.UNAUTHORIZED:
            raise ClusterError(
                f"{self} requires a token: set token_file or token_env in its context (raylens contexts add)"
            )
        if status == httpx.codes.FORBIDDEN:
            raise ClusterError(f"{self} refuses the token from {self._token_source}: write the cluster's token there")

    def _json(self, method: str, path: str) -> dict[str, Any]:
        tree = self._read(self._ask(method, path))
        return tree if isinstance(tree, dict) else {}

    def _read(self, answer: httpx.Response) -> Any:
        if answer.is_error:
            # A failed question may be repeated: parts of the dashboard are restarted when they end.
            again = answer.is_server_error and answer.request.method == "GET"
            why = last_line(answer.text, "nothing more")[:500]
            raise (UnansweredError if again else ClusterError)(
                f"{self} answers {answer.status_code} to {answer.request.url.path}: {why}"
            )
        try:
            return answer.json()
        except json.JSONDecodeError:
            raise ClusterError(f"{self} answers, but not like a Ray dashboard: is the address right?") from None

    def _job(self, tree: Any) -> Job:
        try:
            return Job.model_validate(tree)
        except ValidationError as error:
            raise ClusterError(
                f"{self} describes a job in a form that raylens does not know: {error.errors()[0]}"
            ) from None


_REACH = "is it running, is its address right, and is the port forwarded?"
