"""Following a job: each of its lines once, through broken connections and a dashboard that restarts."""

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
"""How long a cluster may be silent before that is an error: a head restarts in less."""
POLL_SECONDS = 1.0
Write = Callable[[str], None]


class _Once:
    """Writes what has not been written: every connection begins with the first line of the log."""

    def __init__(self, write: Write) -> None:
        self._write, self._written = write, 0
        self._skip = 0

    def begin(self) -> None:
        """What comes next comes from the log's beginning."""
        self._skip = self._written

    def take(self, text: str) -> None:
        """The next part of the log."""
        skipped = min(self._skip, len(text))
        self._skip -= skipped
        if skipped < len(text):
            self._write(text[skipped:])
            self._written += len(text) - skipped


def follow(jobs: Jobs, submission_id: str, write: Write, say: Write, patience: float = PATIENCE_SECONDS) -> Job:
    """Write what a job prints, as it does, until it has ended.

    Args:
        jobs: the cluster's API.
        submission_id: of the job.
        write: gets the log, in parts, each once.
        say: gets sentences about the job and the connection.
        patience: seconds without an answer that are too many.

    Raises:
        ClusterError: the cluster does not know the job, refuses, or was silent for too long.
    """
    once, silence = _Once(write), _Silence(say, patience)
    _until_begun(jobs, submission_id, say, silence)
    while True:
        try:
            once.begin()
            for part in _tail(jobs, submission_id):
                silence.broken()
                once.take(part)
            job = jobs.get(submission_id)
            silence.broken()
            # The whole log once more: the end of a stream may be missing, and a proxy may let none through.
            once.begin()
            once.take(jobs.logs(submission_id))
            if job.ended:
                return job
        except UnansweredError as error:
            silence.still(error)
        time.sleep(POLL_SECONDS)


def wait(
    jobs: Jobs, submission_id: str, say: Write, timeout: float | None = None, patience: float = PATIENCE_SECONDS
) -> Job:
    """The job when it has ended, or, ``timeout`` seconds later, as it is then; ``say`` hears of a cluster's silence.

    Raises:
        ClusterError: the cluster does not know the job, refuses, or was silent for too long.
    """
    silence = _Silence(say, patience)
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        try:
            job = jobs.get(submission_id)
            silence.broken()
            if job.ended or (end is not None and time.monotonic() >= end):
                return job
        except UnansweredError as error:
            silence.still(error)
        time.sleep(POLL_SECONDS)


class _Silence:
    """How long nothing was heard of a cluster."""

    def __init__(self, say: Write, patience: float) -> None:
        self._say, self._patience = say, patience
        self._since: float | None = None

    def broken(self) -> None:
        """It answered."""
        if self._since is not None:
            self._say("the cluster answers again")
        self._since = None

    def still(self, error: UnansweredError) -> None:
        """It did not. Raises when that goes on."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
            self._say(f"{error}; trying again for {self._patience:.0f} s")
        if now - self._since >= self._patience:
            raise error


def _until_begun(jobs: Jobs, submission_id: str, say: Write, silence: _Silence) -> None:
    """A job that waits for resources, or for its environment, has no log; what it waits for is said once."""
    said: str | None = ""
    while True:
        try:
            job = jobs.get(submission_id)
            silence.broken()
            if job.status != "PENDING":
                return
            if job.message and job.message != said:
                said = job.message
                say(f"{job.submission_id}: {said}")
        except UnansweredError as error:
            silence.still(error)
        time.sleep(POLL_SECONDS)


def _tail(jobs: Jobs, submission_id: str) -> Iterator[str]:
    """The log from its beginning, until the job or the connection ends."""
    url = f"ws{jobs.address.removeprefix('http')}/api/jobs/{quote(submission_id, safe='')}/logs/tail"
    try:
        # Uncompressed: the dashboard hands frames on to another process without the agreement about their compression.
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
            f"{jobs} does not stream logs ({error}): does a proxy before it let WebSockets pass?"
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
