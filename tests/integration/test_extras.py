"""In an environment without extras, raylens evaluates and serves for real, and what trains names its extra."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from raylens.ports import free_port
from raylens.registry import Registry
from raylens.storage import open_store
from raylens.workloads.quickstart.digits import pack_digits
from tests.helpers.bare_environment import bare_python
from tests.helpers.serving_app import random_bundle

MAIN = ("-c", "from raylens.workloads.cli import main; main()")
OF_TRAINING = ("deepspeed", "optuna", "sklearn", "tensorboardX")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bare_python(tmp_path_factory.mktemp("bare") / "venv")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("registry")
    Registry(str(folder)).publish("pets", random_bundle())
    return folder


def run(python: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([python, *arguments], cwd=cwd, capture_output=True, text=True, check=False)


def test_the_environment_has_nothing_that_trains(python: Path, tmp_path: Path) -> None:
    for module in OF_TRAINING:
        assert "ModuleNotFoundError" in run(python, "-c", f"import {module}", cwd=tmp_path).stderr


@pytest.mark.parametrize("command", [["train", "digits"], ["sweep", "digits"], ["quickstart"]])
def test_a_command_that_trains_names_the_extra_in_one_line(python: Path, tmp_path: Path, command: list[str]) -> None:
    ended = run(python, *MAIN, *command, cwd=tmp_path)
    assert ended.returncode == 1
    assert ended.stdout == ""
    [line] = ended.stderr.splitlines()
    assert line.startswith("error: ")
    assert "deepspeed" in line
    assert "pip install 'raylens[train]'" in line
    assert list(tmp_path.iterdir()) == []


def test_a_model_is_evaluated(python: Path, registry: Path, tmp_path: Path) -> None:
    shards = pack_digits(open_store(str(tmp_path / "digits")))
    evaluate = ("evaluate", "pets", "--data", shards.held_out.uri, "--registry", str(registry), "--out", "report")
    ended = run(python, *MAIN, *evaluate, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "report" / "report.html").is_file()


@pytest.fixture
def service(python: Path, registry: Path, tmp_path: Path) -> Iterator[str]:
    """The address of a service that `raylens serve` runs until SIGTERM."""
    port = free_port()
    command = [str(python), *MAIN, "serve", "pets", "--registry", str(registry), "--port", str(port), "--num-cpus", "4"]
    environment = os.environ | {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
    try:
        _until_ready(f"http://127.0.0.1:{port}", process, tmp_path / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def _until_ready(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 180
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{address}/readyz", timeout=5).is_success:
                return
        time.sleep(0.5)
    raise AssertionError(log.read_text())


def test_a_model_is_served(service: str) -> None:
    response = httpx.post(f"{service}/v1/embeddings", json={"input": ["a cat"]}, timeout=30)
    assert response.status_code == 200
    assert response.json()["model"] == "pets"
