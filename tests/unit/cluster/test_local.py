"""What keeps the nodes of a local cluster: whatever a node has started ends with it. Without Ray."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from raylens.cluster.local import state, supervisor
from raylens.cluster.local.cluster import LocalCluster
from raylens.cluster.local.commands import NodeShape, environment, head_command, node_command
from raylens.errors import ClusterError

NODE = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
sleep = [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"]
# One that a process leaves behind which has ended, in a session of its own, and deaf to SIGTERM.
middle = f"import subprocess; print(subprocess.Popen({sleep!r}, start_new_session=True).pid, flush=True)"
subprocess.run([sys.executable, "-c", middle], check=True)
print(subprocess.Popen(sleep).pid, flush=True)
time.sleep(600)
"""
PATIENCE_SECONDS = 60.0


def keep(code: str, parent: str = "") -> "subprocess.Popen[str]":
    words = [sys.executable, "-I", str(supervisor.__file__), sys.executable, "-c", code]
    if parent:
        words = [sys.executable, "-c", parent, *words]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def started(keeper: "subprocess.Popen[str]") -> list[psutil.Process]:
    assert keeper.stdout is not None
    return [psutil.Process(int(keeper.stdout.readline())) for _ in range(2)]


def gone(processes: list[psutil.Process]) -> bool:
    """Reaped or only waiting to be."""
    _, alive = psutil.wait_procs(processes, timeout=PATIENCE_SECONDS)
    return [one for one in alive if one.is_running() and one.status() != psutil.STATUS_ZOMBIE] == []


def end_of_input(keeper: "subprocess.Popen[str]") -> None:
    assert keeper.stdin is not None
    keeper.stdin.close()


def kill_line(keeper: "subprocess.Popen[str]") -> None:
    assert keeper.stdin is not None
    keeper.stdin.write("kill\n")
    keeper.stdin.flush()


@pytest.mark.parametrize("end", [end_of_input, kill_line, lambda keeper: keeper.terminate()])
def test_all_that_a_node_has_started_ends_with_it(end: Callable[["subprocess.Popen[str]"], None]) -> None:
    with keep(NODE) as keeper:
        processes = started(keeper)
        end(keeper)
        assert keeper.wait(PATIENCE_SECONDS) == 0
    assert gone(processes)


def test_a_node_ends_with_whoever_started_it_however_that_ends() -> None:
    # Its standard input is a pipe that only the parent holds.
    parent = "import subprocess, sys, time; p = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE); time.sleep(600)"
    with keep(NODE, parent) as owner:
        processes = started(owner)
        [keeper] = psutil.Process(owner.pid).children()
        owner.kill()
    assert gone([*processes, keeper])


def test_a_node_that_ends_by_itself_says_how() -> None:
    with keep("raise SystemExit(7)") as keeper:
        assert keeper.wait(PATIENCE_SECONDS) == 7


def test_a_node_ends_even_where_its_supervisor_is_killed() -> None:
    with keep("import os, time; print(os.getpid(), os.getpid(), sep='\\n', flush=True); time.sleep(600)") as keeper:
        processes = started(keeper)
        keeper.kill()
    assert gone(processes[:1])


def test_a_port_that_is_taken_is_said_before_anything_starts() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ClusterError, match=f"port {port} of 127.0.0.1 is taken"):
            LocalCluster([NodeShape()], port)


def test_nodes_are_told_what_they_need_and_no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray://elsewhere:10001")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "hidden-1")
    variables = environment(tmp_path / "token")
    assert variables["RAY_AUTH_MODE"] == "token"
    assert variables["RAY_AUTH_TOKEN_PATH"] == str(tmp_path / "token")
    assert variables["RAY_JOB_STOP_SIGNAL"] == "SIGINT"
    assert variables["PATH"].startswith(str(Path(sys.executable).parent))
    assert not {"RAY_ADDRESS", "RAY_AUTH_TOKEN"} & set(variables)
    assert "hidden-1" not in str(variables)


def test_commands_of_nodes() -> None:
    shape = NodeShape(cpus=3, labels={"raylens.io/group": "head", "x": "y"})
    head = head_command(shape, Path("/t"), 6379, 8265)
    assert {"--head", "--block", "--num-cpus=3", "--labels=raylens.io/group=head,x=y", "--port=6379"} <= set(head)
    assert {"--dashboard-host=127.0.0.1", "--dashboard-port=8265", "--temp-dir=/t"} <= set(head)
    node = node_command(NodeShape(), "10.0.0.1:6379")
    assert "--address=10.0.0.1:6379" in node
    assert not any(word.startswith("--labels") for word in node)


def test_a_cluster_in_the_background_is_found_and_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert state.running("mine") is None
    with pytest.raises(ClusterError, match="no local cluster 'mine' runs"):
        state.stop("mine")
    record = "import time; from raylens.cluster.local.state import record; record('mine', 'x')"
    code = f"{record}; print(flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert state.running("mine") == process.pid
        state.stop("mine")
        assert process.wait(PATIENCE_SECONDS) == -signal.SIGTERM
    # The file is still there, but its number is nobody's, or another's.
    assert state.running("mine") is None
    file = state.state_folder() / "mine.json"
    file.write_text(file.read_text().replace(str(process.pid), str(os.getpid())))
    assert state.running("mine") is None
    state.forget("mine")
    assert not file.exists()
