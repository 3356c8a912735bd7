"""Following a job's log: each line once, across broken connections and restarts of the dashboard."""

import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import connect

from raylens.cluster.jobs.api import Job, Jobs
from raylens.errors import ClusterError, UnansweredError

__all__ = ["PATIENCE_SECONDS", "follow", "wait"]

PATIENCE_SECONDS = 300.0
"""Seconds without an answer after which following fails: a head restarts in less."""
POLL_SECONDS = 1.0
Write = Callable[[str], None]


class _Once:
    """Writes only what it has not written before: every connection begins with the log's first line."""

    def __init__(self, write: Write) -> None:
        self._write, self._written = write, 0
        self._skip = 0

    def begin(self) -> None:
        """Expect the log from its beginning again."""
        self._skip = self._written

    def take(self, text: str) -> None:
        """Take the next part of the log, and write what is new in it."""
        skipped = min(self._skip, len(text))
        self._skip -= skipped
        if skipped < len(text):
            self._write(text[skipped:])
            self._written += len(text) - skipped


def follow(jobs: Jobs, submission_id: str, write: Write, say: Write, patience: float = PATIENCE_SECONDS) -> Job:
    """Write what a job prints while it runs, and return the job when it has ended.

    Args:
        jobs: the cluster's API.
        submission_id: the job's ID.
        write: receives the parts of the log, each once.
        say: receives sentences about the job and the connection.
        patience: seconds without an answer after which following fails.

    Raises:
        ClusterError: the cluster has no such job, refuses the request, or was silent for too long.
    """
    once, silence = _Once(write), _Silence(say, patience)
    _until_begun(jobs, submission_id, say, silence)
    while True:
        try:
            once.begin()
            for part in _tail(jobs, submission_id):
                silence.end()
                once.take(part)
            job = jobs.get(submission_id)
            silence.end()
            # The whole log is read once more: a stream may lack its end, and a proxy may block streams altogether.
            once.begin()
            once.take(jobs.logs(submission_id))
            if job.ended:
                return job
        except UnansweredError as error:
            silence.prolong(error)
        time.sleep(POLL_SECONDS)


def wait(
    jobs: Jobs, submission_id: str, say: Write, timeout: float | None = None, patience: float = PATIENCE_SECONDS
) -> Job:
    """Return the job when it has ended, or as it is after ``timeout`` seconds.

    Args:
        jobs: the cluster's API.
        submission_id: the job's ID.
        say: receives a sentence when the cluster does not answer.
        timeout: seconds to wait; None waits until the job ends.
        patience: seconds without an answer after which waiting fails.

    Raises:
        ClusterError: the cluster has no such job, refuses the request, or was silent for too long.
    """
    silence = _Silence(say, patience)
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        try:
            job = jobs.get(submission_id)
            silence.end()
            if job.ended or (end is not None and time.monotonic() >= end):
                return job
        except UnansweredError as error:
            silence.prolong(error)
        time.sleep(POLL_SECONDS)


class _Silence:
    """The time during which a cluster has not answered."""

    def __init__(self, say: Write, patience: float) -> None:
        self._say, self._patience = say, patience
        self._since: float | None = None

    def end(self) -> None:
        """Note that the cluster has answered."""
        if self._since is not None:
            self._say("the cluster answers again")
        self._since = None

    def prolong(self, error: UnansweredError) -> None:
        """Note that the cluster has not answered; raise ``error`` if the silence lasts too long."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
            self._say(f"{error}; trying again for {self._patience:.0f} s")
        if now - self._since >= self._patience:
            raise error


def _until_begun(jobs: Jobs, submission_id: str, say: Write, silence: _Silence) -> None:
    """Wait until a job has a log, which it lacks while it waits for resources; report once what it waits for."""
    said: str | None = ""
    while True:
        try:
            job = jobs.get(submission_id)
            silence.end()
            if job.status != "PENDING":
                return
            if job.message and job.message != said:
                said = job.message
                say(f"{job.submission_id}: {said}")
        except UnansweredError as error:
            silence.prolong(error)
        time.sleep(POLL_SECONDS)


def _tail(jobs: Jobs, submission_id: str) -> Iterator[str]:
    """Yield the log from its beginning, until the job or the connection ends."""
    url = f"ws{jobs.address.removeprefix('http')}/api/jobs/{quote(submission_id, safe='')}/logs/tail"
    try:
        # Uncompressed: the dashboard forwards frames to another process, which does not know how they are compressed.
        options: dict[str, Any] = {"compression": None, "max_size": None, "additional_headers": jobs.headers}
        with jobs.explained(), connect(url, ssl=_ssl(jobs), **options) as socket:
            while True:
                part = socket.recv()
                yield part if isinstance(part, str) else part.decode()
    except ConnectionClosed:
        return
    except InvalidStatus as error:
        jobs.refused(error.response.status_code)
        jobs.get(submission_id)
        raise UnansweredError(f"{jobs} answers {error.response.status_code} instead of a log") from None
    except InvalidHandshake as error:
        raise ClusterError(
            f"{jobs} does not stream logs ({error}): does a proxy in front of it allow WebSockets?"
        ) from None


def _ssl(jobs: Jobs) -> ssl.SSLContext | None:
    if not jobs.address.startswith("https"):
        return None
    if isinstance(jobs.verify, str):
        return ssl.create_default_context(cafile=jobs.verify)
    context = ssl.create_default_context()
    if not jobs.verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
