"""The Jobs API from outside: each complaint in one line, a job submitted once, its log followed through breaks."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

from raylens.cluster.contexts import ClusterContext
from raylens.cluster.driver_resources import Resources
from raylens.cluster.jobs import logs
from raylens.cluster.jobs.api import Job, Jobs
from raylens.cluster.jobs.logs import follow, wait
from raylens.cluster.jobs.package import Package, file_package
from raylens.cluster.jobs.submission import KEY, Submission, check_id, check_metadata, next_id, submitted
from raylens.cluster.jobs.submit import check_version, retry, submit
from raylens.errors import ClusterError, ConfigError, UnansweredError

TOKEN = "the-token"
CODE = file_package({"code.py": b"1"})
SUBMISSION = Submission(command=("train", "digits"), code=CODE.name, secrets=("A",), env={"X": "y"})


class Dashboard(ThreadingHTTPServer):
    """Answers like Ray's: keeps jobs and packages, and asks for a token."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.jobs: dict[str, dict[str, Any]] = {}
        self.packages: dict[str, bytes] = {}
        self.instead: dict[str, tuple[int, dict[str, str], str]] = {}
        """Answers by path that come instead of its own."""
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, str]:
        kind, _, name = path.removeprefix("/api/").partition("/")
        if kind == "version":
            return 200, json.dumps({"version": "4", "ray_version": "2.60.0"})
        if kind == "packages":
            name = name.removeprefix("gcs/")
            if method == "PUT":
                self.packages[name] = body
            return (200, "") if name in self.packages else (404, "no such package")
        if method == "POST":
            return self._submit(json.loads(body))
        if not name:
            return 200, json.dumps(list(self.jobs.values()))
        return (200, json.dumps(self.jobs[name])) if name in self.jobs else (404, f"Job {name} does not exist")

    def _submit(self, request: dict[str, Any]) -> tuple[int, str]:
        name = request["submission_id"]
        if name in self.jobs:
            return 500, f"Traceback (most recent call last):\n  ...\nValueError: Job with {name} already exists."
        self.jobs[name] = {**request, "type": "SUBMISSION", "status": "RUNNING", "start_time": len(self.jobs), "new": 1}
        return 200, json.dumps({"submission_id": name})


class _Handler(BaseHTTPRequestHandler):
    server: Dashboard

    def _do(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        token = self.headers.get("authorization")
        headers: dict[str, str] = {}
        if self.path in self.server.instead:
            status, headers, text = self.server.instead[self.path]
        elif token != f"Bearer {TOKEN}":
            status, text = (403, "Forbidden") if token else (401, "Unauthorized")
        else:
            status, text = self.server.answer(self.command, self.path, body)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_POST = do_PUT = do_DELETE = _do

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def dashboard() -> Iterator[Dashboard]:
    with Dashboard() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def token_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "token"
    file.write_text(TOKEN)
    return file


@pytest.fixture
def jobs(dashboard: Dashboard, token_file: Path) -> Iterator[Jobs]:
    with Jobs("lab", ClusterContext(address=dashboard.address, token_file=str(token_file))) as api:
        yield api


def test_the_address_is_the_contexts_whatever_ray_says(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert jobs.ray_version() == "2.60.0"


def test_nobody_answers() -> None:
    with Jobs("lab", ClusterContext(address="http://127.0.0.1:9")) as jobs, pytest.raises(UnansweredError) as error:
        jobs.ray_version()
    assert str(error.value).startswith("no answer from cluster 'lab' at http://127.0.0.1:9 (")


def test_tokens_are_asked_for_and_refused(dashboard: Dashboard, token_file: Path) -> None:
    with (
        Jobs("lab", ClusterContext(address=dashboard.address)) as jobs,
        pytest.raises(ClusterError, match="set token_file or token_env"),
    ):
        jobs.all()
    token_file.write_text("another")
    context = ClusterContext(address=dashboard.address, token_file=str(token_file))
    with Jobs("lab", context) as jobs, pytest.raises(ClusterError, match="refuses the token from the file") as error:
        jobs.all()
    assert "another" not in str(error.value)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((302, {"location": "https://login.example.com/"}, ""), "redirects to https://login.example.com/"),
        ((200, {}, "<html>welcome</html>"), "answers, but not like a Ray dashboard"),
        ((200, {}, "{}"), "answers, but not like a Ray dashboard"),
        (
            (500, {}, "Traceback:\n  File x\nValueError: it is broken\n"),
            "answers 500 to /api/version: ValueError: it is",
        ),
        ((200, {}, '{"ray_version": "2.44.1"}'), "runs Ray 2.44.1, this raylens is made for 2.60.0"),
    ],
)
def test_what_answers_is_no_cluster_for_raylens(
    dashboard: Dashboard, jobs: Jobs, answer: tuple[int, dict[str, str], str], said: str
) -> None:
    dashboard.instead["/api/version"] = answer
    with pytest.raises(ClusterError) as error:
        check_version(jobs, "2.60.0")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_job_is_started_once_and_its_code_brought_once(dashboard: Dashboard, jobs: Jobs) -> None:
    first = submit(jobs, "mine", SUBMISSION, [CODE], {"user": "me"})
    assert (first.new, first.uploaded) == (True, (CODE.name,))
    again = submit(jobs, "mine", SUBMISSION, [CODE], {"user": "somebody else"})
    assert (again.new, again.uploaded) == (False, ())
    other = submit(jobs, "other", SUBMISSION, [CODE], {})
    assert (other.new, other.uploaded) == (True, ())
    assert [asked for asked in dashboard.asked if asked.startswith("PUT")] == [f"PUT /api/packages/gcs/{CODE.name}"]
    assert [job.submission_id for job in jobs.all()] == ["other", "mine"]
    changed = SUBMISSION.model_copy(update={"command": ("train", "vit_b32")})
    with pytest.raises(ClusterError, match=r"'mine' \(RUNNING\) .*: command \['train', 'digits'\] then"):
        submit(jobs, "mine", changed, [CODE], {})


def test_a_race_for_an_id_has_one_winner(dashboard: Dashboard, jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    submit(jobs, "mine", SUBMISSION, [CODE], {})
    found, real = iter([None]), jobs.find
    monkeypatch.setattr(jobs, "find", lambda name: next(found, None) or real(name) if dashboard.asked else None)
    assert not submit(jobs, "mine", SUBMISSION, [CODE], {}).new


def test_an_answer_that_is_lost_says_how_to_go_on(dashboard: Dashboard, jobs: Jobs) -> None:
    real = dashboard.answer

    def breaks(method: str, path: str, body: bytes) -> tuple[int, str]:
        answer = real(method, path, body)
        if method == "POST":
            raise ConnectionAbortedError
        return answer

    dashboard.answer = breaks  # type: ignore[method-assign]
    dashboard.handle_error = lambda *_: None  # type: ignore[method-assign]
    with pytest.raises(UnansweredError, match="the same command with --id mine follows it, or starts it"):
        submit(jobs, "mine", SUBMISSION, [CODE], {})
    dashboard.answer = real  # type: ignore[method-assign]
    assert not submit(jobs, "mine", SUBMISSION, [CODE], {}).new


def test_a_retry_is_the_same_job_under_the_next_id(dashboard: Dashboard, jobs: Jobs) -> None:
    submit(jobs, "mine", SUBMISSION, [CODE], {"user": "me"})
    with pytest.raises(ClusterError, match="is RUNNING: stop it first"):
        retry(jobs, "mine")
    dashboard.jobs["mine"]["status"] = "FAILED"
    dashboard.packages.clear()  # as Ray does, when no job needs one
    second = retry(jobs, "mine")
    assert (second.submission_id, second.new, second.uploaded) == ("mine-2", True, (CODE.name,))
    mine, again = jobs.get("mine"), jobs.get("mine-2")
    assert (again.entrypoint, again.runtime_env) == (mine.entrypoint, mine.runtime_env)
    assert again.metadata is not None
    assert (again.metadata["user"], again.metadata["raylens.retry_of"]) == ("me", "mine")
    dashboard.jobs["mine-2"]["status"] = "STOPPED"
    assert retry(jobs, "mine-2").submission_id == "mine-3"
    dashboard.jobs["mine-3"]["status"] = "SUCCEEDED"
    with pytest.raises(ClusterError, match="'mine-3' has succeeded"):
        retry(jobs, "mine-3")


def test_a_retry_whose_code_is_nowhere_says_so(dashboard: Dashboard, jobs: Jobs) -> None:
    gone = Submission(command=("train", "digits"), code="raylens-0.1.0-gone.zip")
    submit(jobs, "mine", gone, [], {})
    dashboard.jobs["mine"]["status"] = "FAILED"
    with pytest.raises(ClusterError, match=r"raylens-0\.1\.0-gone\.zip.*'mine'"):
        retry(jobs, "mine")


def test_a_strangers_job_is_not_tried_again(dashboard: Dashboard, jobs: Jobs) -> None:
    dashboard.jobs["theirs"] = {"submission_id": "theirs", "status": "FAILED", "entrypoint": "python x.py"}
    with pytest.raises(ClusterError, match=r"was not submitted by raylens: 'python x\.py'"):
        retry(jobs, "theirs")
    with pytest.raises(ClusterError, match="has no job 'none'"):
        retry(jobs, "none")


def test_a_request_says_where_everything_is_and_holds_no_value() -> None:
    submission = Submission(
        command=("train", "job-files:/a b.yaml"),
        code="raylens-0.1.0-0a.zip",
        files="raylens-files-0b.zip",
        constraints="raylens-files-0c.zip",
        requirements=("-c x", "wandb>=0.31"),
        env={"X": "y"},
        secrets=("KEY=file:/k",),
        resources=Resources(cpus=2, custom={"big": 1}),
    )
    request = submission.request("mine", {"user": "me"})
    assert request["entrypoint"] == "python -m raylens.workloads.job_entrypoint train 'job-files:/a b.yaml'"
    assert request["runtime_env"] == {
        "env_vars": {
            "X": "y",
            "RAYLENS_WHEEL": "raylens-0.1.0-0a",
            "RAYLENS_FILES": "raylens-files-0b",
            "RAYLENS_SECRETS": '["KEY=file:/k"]',
        },
        "py_modules": ["gcs://raylens-0.1.0-0a.zip", "gcs://raylens-files-0b.zip"],
        "worker_process_setup_hook": "raylens.cluster.secrets.provide",
        "pip": {"packages": ["-c x", "wandb>=0.31"], "pip_check": False},
        "working_dir": "gcs://raylens-files-0c.zip",
    }
    assert {name: request[name] for name in request if name.startswith("entrypoint_")} == {
        "entrypoint_num_cpus": 2,
        "entrypoint_resources": {"big": 1},
    }
    assert submitted(Job(status="RUNNING", metadata=request["metadata"])) == submission
    assert set(request["metadata"]) == {"user", KEY}


@given(st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,20}\Z"), st.integers(2, 30))
def test_attempts_are_counted_behind_the_first_id(first: str, attempts: int) -> None:
    name = first
    for attempt in range(2, attempts + 1):
        name = next_id(name, attempt)
        assert name == f"{first}-{attempt}"


def test_ids_and_metadata_that_cannot_be() -> None:
    assert check_id("mine-2.a_b") == "mine-2.a_b"
    for wrong in ("", "a/b", "-a", "a b", "x" * 101):
        with pytest.raises(ConfigError, match="--id"):
            check_id(wrong)
    check_metadata({"team": "vision"})
    for key in ("raylens.user", "job_submission_id", "job_name"):
        with pytest.raises(ConfigError, match=f"--metadata {key}"):
            check_metadata({key: "x"})


LOG = [f"line {number} ä\n" for number in range(60)]


class LogServer:
    """Streams a log, and breaks off when it is told to; every connection begins with the first line."""

    def __init__(self, breaks: list[int]) -> None:
        self.breaks = breaks
        """How many lines of the log each connection brings."""
        self.connections = 0
        self.pending = 2
        self.ended = False

    def http(self, _: ServerConnection, request: Request) -> Response | None:
        if request.path.endswith("/tail"):
            return None
        if request.path.endswith("/logs"):
            return self._json({"logs": "".join(LOG)})
        self.pending -= 1
        status = "PENDING" if self.pending >= 0 else "SUCCEEDED" if self.ended else "RUNNING"
        return self._json({"submission_id": "mine", "status": status, "message": "waiting for the runtime environment"})

    def stream(self, socket: ServerConnection) -> None:
        lines = self.breaks[self.connections] if self.connections < len(self.breaks) else len(LOG)
        self.connections += 1
        for line in LOG[:lines]:
            socket.send(line)
        if self.connections <= len(self.breaks):
            socket.socket.close()
        else:
            self.ended = True

    @staticmethod
    def _json(tree: dict[str, Any]) -> Response:
        body = json.dumps(tree).encode()
        return Response(200, "OK", Headers({"content-length": str(len(body)), "connection": "close"}), body)


@pytest.fixture
def log_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[list[int]], Jobs]]:
    monkeypatch.setattr(logs, "POLL_SECONDS", 0.01)
    running: list[tuple[Server, threading.Thread]] = []

    def begin(breaks: list[int]) -> Jobs:
        told = LogServer(breaks)
        server = serve(told.stream, "127.0.0.1", 0, process_request=told.http, compression=None)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        running.append((server, thread))
        return Jobs("lab", ClusterContext(address=f"http://127.0.0.1:{server.socket.getsockname()[1]}"))

    yield begin
    for server, thread in running:
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("breaks", [[], [0], [5], [3, 30, 1, 60, 7]])
def test_each_line_is_written_once_through_broken_connections(
    log_server: Callable[[list[int]], Jobs], breaks: list[int]
) -> None:
    written: list[str] = []
    said: list[str] = []
    with log_server(breaks) as jobs:
        job = follow(jobs, "mine", written.append, said.append)
    assert job.status == "SUCCEEDED"
    assert "".join(written) == "".join(LOG)
    assert said == ["mine: waiting for the runtime environment"]


def test_a_cluster_that_stays_silent_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "POLL_SECONDS", 0.01)
    said: list[str] = []
    with Jobs("lab", ClusterContext(address="http://127.0.0.1:9")) as jobs:
        with pytest.raises(UnansweredError):
            follow(jobs, "mine", said.append, said.append, patience=0.05)
        with pytest.raises(UnansweredError):
            wait(jobs, "mine", said.append, patience=0.05)
    assert len(said) == 2
    assert "trying again for 0 s" in said[0]


def test_waiting_ends_with_its_time(dashboard: Dashboard, jobs: Jobs) -> None:
    submit(jobs, "mine", SUBMISSION, [CODE], {})
    assert wait(jobs, "mine", print, timeout=0).status == "RUNNING"
    dashboard.jobs["mine"]["status"] = "STOPPED"
    assert wait(jobs, "mine", print).status == "STOPPED"


def test_packages_are_not_shown() -> None:
    assert "data" not in repr(Package("a.zip", "0", b"x" * 100))
