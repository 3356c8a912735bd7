"""The commands as a newcomer runs them, on a folder and on S3, undisturbed and not."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from raylens.ports import free_port
from raylens.registry import Registry
from raylens.storage import open_store
from raylens.train.checkpoint.store import Checkpoints
from raylens.train.runs.jsonl import read_metrics
from raylens.workloads.cli import main

RAYLENS = str(Path(sys.executable).parent / "raylens")
SHRUNK = ["--set", "length.epochs=15", "--set", "checkpoint.every_steps=10", "--set", "optim.schedule.warmup_steps=10"]
LIMIT = 400
CLOSED = "s3://bucket/?endpoint_override=http://127.0.0.1:9"
OURS = re.compile(r" *\d+\.\d s  \S|[1-4]  \S|train digits$|interrupted; the same command resumes|error: ")
"""Every line that a command may print to standard error: what is done, with the seconds; headings; how it ended."""


def raylens(*arguments: str, cwd: Path, limit: int = LIMIT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([RAYLENS, *arguments], cwd=cwd, capture_output=True, text=True, timeout=limit, check=False)


def strange(printed: str) -> list[str]:
    """Lines that are not raylens' own: of Ray, torch, DeepSpeed or Python."""
    return [line for line in printed.splitlines() if line.strip() and not OURS.match(line)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("newcomer")


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> dict[str, object]:
    """The whole quickstart, shrunk, on a folder."""
    done = raylens("quickstart", "--json", *SHRUNK, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert strange(done.stderr) == []
    (line,) = done.stdout.splitlines()
    result: dict[str, object] = json.loads(line)
    return result


def test_quickstart_on_a_folder(folder: Path, undisturbed: dict[str, object]) -> None:
    accuracy, interval = undisturbed["zero_shot_accuracy"], undisturbed["zero_shot_interval"]
    assert isinstance(accuracy, float)
    assert isinstance(interval, list)
    assert interval[0] > 0.2, "chance is 0.1: even the shrunk run is far above it"
    assert interval[0] < accuracy < interval[1]
    assert undisturbed["train_pairs"] == 1441
    assert undisturbed["held_out_scans"] == 356
    assert undisturbed["steps"] == 169
    report = (folder / str(undisturbed["report"])).read_text()
    assert f"{accuracy:.1%}" in report
    assert "<svg" in report or "data:image/png" in report
    records = read_metrics(open_store(folder / str(undisturbed["run"])))
    assert [record["step"] for record in records] == [*range(10, 161, 10), 169]
    assert records[-1]["loss"] == undisturbed["final_loss"] < records[0]["loss"]


def test_quickstart_again_reuses_what_is_there(folder: Path, undisturbed: dict[str, object]) -> None:
    again = raylens("quickstart", "--json", *SHRUNK, cwd=folder)
    assert again.returncode == 0, again.stderr
    assert strange(again.stderr) == []
    result = json.loads(again.stdout)
    assert result["resumed_at"] == result["steps"] == 169
    assert result["model"] == undisturbed["model"] == "digits@1"
    assert result["zero_shot_accuracy"] == undisturbed["zero_shot_accuracy"]


@pytest.mark.slow
def test_quickstart_on_s3_gives_the_same(folder: Path, undisturbed: dict[str, object], s3_bucket: str) -> None:
    base, question, query = s3_bucket.partition("?")
    uri = f"{base}/a prefix{question}{query}"
    done = raylens("quickstart", "--json", "--storage", uri, *SHRUNK, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert strange(done.stderr) == []
    result = json.loads(done.stdout)
    same = ("zero_shot_accuracy", "zero_shot_interval", "final_loss", "steps", "train_pairs")
    assert {name: result[name] for name in same} == {name: undisturbed[name] for name in same}
    assert str(result["report"]).startswith("s3://")
    assert open_store(uri).exists("runs/digits/report.html")


class Started:
    """A command that runs, and everything that it starts."""

    def __init__(self, *arguments: str, cwd: Path) -> None:
        self.log = cwd / f"log-{time.monotonic_ns()}"
        with self.log.open("w") as sink:
            self.process = subprocess.Popen([RAYLENS, *arguments], cwd=cwd, stdout=sink, stderr=sink)
        self.family: set[psutil.Process] = set()

    def wait_for_checkpoint(self, checkpoints: Checkpoints, step: int) -> None:
        deadline = time.monotonic() + LIMIT
        while not any(found >= step for found in checkpoints.steps()):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            self.family |= set(psutil.Process(self.process.pid).children(recursive=True))
            time.sleep(0.2)

    def end_with(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=LIMIT)

    def survivors(self, seconds: float = 150.0) -> list[str]:
        """Processes of the command that stay. Ray's agents notice the end of a killed cluster after a minute."""
        _, alive = psutil.wait_procs(self.family, timeout=seconds)
        return [f"{process.pid} {' '.join(process.cmdline())[:200]}" for process in alive if process.is_running()]


@pytest.fixture
def disturbed(folder: Path, undisturbed: dict[str, object]) -> list[str]:
    """The arguments of the same training in another place."""
    assert undisturbed
    return [
        "train", "digits", *SHRUNK,
        "--set", f"data.train={folder}/quickstart/data/train",
        "--set", f"storage={folder}/disturbed/runs",
        "--set", f"registry={folder}/disturbed/registry",
    ]  # fmt: skip


@pytest.mark.slow
def test_interrupted_and_killed_it_resumes_to_the_same_weights(folder: Path, disturbed: list[str]) -> None:
    checkpoints = Checkpoints(open_store(folder / "disturbed" / "runs" / "digits"))

    interrupted = Started(*disturbed, cwd=folder)
    interrupted.wait_for_checkpoint(checkpoints, 10)
    assert interrupted.end_with(signal.SIGINT) == 130, interrupted.log.read_text()
    assert "the same command resumes" in interrupted.log.read_text()
    assert "Traceback" not in interrupted.log.read_text()
    assert interrupted.survivors() == []

    killed = Started(*disturbed, cwd=folder)
    killed.wait_for_checkpoint(checkpoints, 30)
    killed.end_with(signal.SIGKILL)

    reached = checkpoints.steps()[-1]
    last = raylens(*disturbed, cwd=folder)  # at once, while what was killed is still going down
    assert killed.survivors() == []
    assert last.returncode == 0, last.stderr
    assert f"continuing after step {reached}" in last.stderr
    weights = [
        Registry(str(folder / place / "registry")).load("digits")[1].bundle.weights
        for place in ("quickstart", "disturbed")
    ]
    assert {name: tensor.numpy().tobytes() for name, tensor in weights[0].items()} == {
        name: tensor.numpy().tobytes() for name, tensor in weights[1].items()
    }


def one_line_of(ended: tuple[int, str]) -> tuple[int, str]:
    """The exit status, and the last line that a command printed, which is all that it says of its end."""
    code, printed = ended
    assert "Traceback" not in printed
    *_, last = printed.strip().splitlines()
    assert last.startswith("error: "), printed
    return code, last


def here(*arguments: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit status and the errors of a command in this process, over the cluster that it is joined to."""
    monkeypatch.setattr("sys.argv", ["raylens", *arguments])
    capfd.readouterr()
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code, capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["train", "nope"], 2, "unknown recipe 'nope'; recipes: digits, rn50"),
        (
            ["train", "digits", "--set", "resources.workers=32"],
            1,
            "need 33 CPUs (1 of them to read data), the cluster has",
        ),
    ],
)
def test_a_command_that_cannot_work_ends_with_one_clear_line(
    tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    failed = raylens(*arguments, cwd=tmp_path)
    ended, line = one_line_of((failed.returncode, failed.stderr))
    assert ended == code
    assert words in line


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["train", "digits", "--set", "optim.peak=1"], 2, "unknown key 'optim.peak' (did you mean 'peak_lr'?)"),
        (["train", "digits", "--set", "global_batch=127"], 2, "cannot be shared equally by resources.workers = 2"),
        (["train", "digits", "--set", "data.train=nothing"], 1, "data set nothing: there is no such folder"),
        (["train", "digits", "--set", "storage=s3://x"], 2, "bucket 'x' is not a bucket name"),
        (["train", "digits", "--set", f"data.train={CLOSED}"], 1, "127.0.0.1:9"),
        (["evaluate", "nobody", "--data", "."], 1, "no model 'nobody' in the registry registry; models there: none"),
        (["serve", "nobody"], 1, "no model 'nobody' in the registry"),
        (["data", "index", "nothing"], 1, "data set nothing: there is no such folder"),
    ],
)
def test_mistakes_get_one_clear_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.chdir(tmp_path)
    ended, line = one_line_of(here(*arguments, monkeypatch=monkeypatch, capfd=capfd))
    assert ended == code
    assert words in line


@pytest.mark.usefixtures("cluster")
def test_a_port_in_use_is_said_before_anything_starts(
    folder: Path, undisturbed: dict[str, object], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert undisturbed
    monkeypatch.chdir(folder)
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        arguments = ["serve", "digits", "--registry", "quickstart/registry", "--port", port]
        ended, line = one_line_of(here(*arguments, monkeypatch=monkeypatch, capfd=capfd))
    assert ended == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in line


def test_serve_answers_until_it_is_told_to_stop(folder: Path, undisturbed: dict[str, object]) -> None:
    assert undisturbed
    port = free_port()
    served = Started("serve", "digits", "--registry", "quickstart/registry", "--port", str(port), cwd=folder)
    deadline = time.monotonic() + LIMIT
    while "ready: " not in served.log.read_text():
        assert served.process.poll() is None, served.log.read_text()
        assert time.monotonic() < deadline, served.log.read_text()
        time.sleep(0.5)
    served.family |= set(psutil.Process(served.process.pid).children(recursive=True))
    answer = httpx.post(f"http://127.0.0.1:{port}/v1/embeddings", json={"input": ["a handwritten seven"]}, timeout=60)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["data"][0]["embedding"]) == 64
    assert served.end_with(signal.SIGTERM) == 0, served.log.read_text()  # as containers are stopped
    assert served.survivors() == []
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))


def test_help_teaches() -> None:
    environment = {**os.environ, "COLUMNS": "120"}
    for command in ([], ["quickstart"], ["train"], ["evaluate"], ["serve"], ["models", "promote"], ["data", "index"]):
        shown = subprocess.run(
            [RAYLENS, *command, "--help"], capture_output=True, text=True, env=environment, timeout=60, check=True
        )
        assert "Usage" in shown.stdout
        assert "raylens" in shown.stdout.split("Options")[0]
