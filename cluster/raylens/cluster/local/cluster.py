"""A cluster of several nodes on this machine: real raylets, the dashboard with the Jobs API, token authentication."""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from raylens.cluster.contexts import ClusterContext
from raylens.cluster.jobs.api import Jobs
from raylens.cluster.local import supervisor
from raylens.cluster.local.commands import NodeShape, environment, head_command, node_command
from raylens.cluster.private_file import replace_private
from raylens.errors import ClusterError
from raylens.ports import free_port

__all__ = ["LocalCluster", "LocalNode"]

START_SECONDS = 120.0
STOP_SECONDS = 60.0
LOOK_SECONDS = 0.25
LOG_LINES = 3


class LocalNode:
    """One raylet with all its processes, under a supervisor that ends them on request, or when this process is gone."""

    def __init__(self, name: str, command: Sequence[str], variables: dict[str, str], log: Path) -> None:
        self.name, self.log = name, log
        with log.open("wb") as sink:
            self._supervisor = subprocess.Popen(  # noqa: S603 (our own words)
                [sys.executable, "-I", str(supervisor.__file__), *command],
                stdin=subprocess.PIPE,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=variables,
                start_new_session=True,  # a Ctrl-C at the terminal is ours to answer
                text=True,
            )

    @property
    def running(self) -> bool:
        """Whether any process of the node is left."""
        return self._supervisor.poll() is None

    @property
    def pid(self) -> int:
        """The ID of the supervisor, whose descendants are all processes of the node."""
        return self._supervisor.pid

    def ask_to_stop(self) -> None:
        """Ask the node to stop in an orderly way, without waiting for it."""
        self._send("")

    def kill(self) -> None:
        """Kill all processes at once, as if the machine had lost power, and return when none is left."""
        self._send("kill\n")
        self.wait()

    def wait(self) -> None:
        """Wait until no process of the node is left."""
        try:
            self._supervisor.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise ClusterError(
                f"{self.name} does not end within {STOP_SECONDS:.0f} s: pid {self._supervisor.pid}"
            ) from None

    def _send(self, line: str) -> None:
        assert self._supervisor.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):  # it has ended, or got a line before
            self._supervisor.stdin.write(line)
            self._supervisor.stdin.close()

    def last_words(self) -> str:
        """Return the end of Ray's output, in one line."""
        lines = [line.strip() for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines()]
        return " / ".join([line for line in lines if line][-LOG_LINES:])


class LocalCluster:
    """Nodes on this machine. Leaving its ``with`` block ends all their processes and removes their files.

    Args:
        shapes: what the nodes declare; the first is the head.
        port: the port of the dashboard with the Jobs API, on 127.0.0.1; 0 takes a free one.
        say: receives a line before each node is started, which takes seconds.

    Raises:
        ClusterError: the port is taken, or Ray cannot run several nodes on this operating system.
    """

    def __init__(self, shapes: Sequence[NodeShape], port: int = 0, say: Callable[[str], None] = lambda _: None) -> None:
        if not sys.platform.startswith("linux"):
            raise ClusterError(f"Ray runs several nodes on one machine only on Linux, and this is {sys.platform}")
        self._shapes, self._port = tuple(shapes), port or free_port()
        _check_port(self._port)
        self._made, self._say = 0, say
        self.nodes: list[LocalNode] = []
        self.folder = Path(tempfile.mkdtemp(prefix="raylens-"))  # short: sockets' paths have at most 107 letters
        self.token_file = self.folder / "token"
        self.context = ClusterContext(address=f"http://127.0.0.1:{self._port}", token_file=str(self.token_file))
        self._gcs = ""
        self._complaint = ""

    def start(self) -> None:
        """Start all nodes, and return when they are up.

        Raises:
            ClusterError: a node does not start; the others have been stopped then.
        """
        replace_private(self.token_file, secrets.token_hex(32))
        try:
            for number, shape in enumerate(self._shapes):
                self._say(f"starting node {number + 1} of {len(self._shapes)}{'' if number else ', the head'}")
                if number:
                    self.add_node(shape)
                else:
                    self._start_head(shape)
        except BaseException:  # an interrupt must leave nothing behind either
            self.stop()
            raise

    def add_node(self, shape: NodeShape) -> LocalNode:
        """Start another node, and return when it is up.

        Nodes are started one after the other, because Ray names their sockets by what exists.

        Raises:
            ClusterError: the node does not start.
        """
        before = {node["node_id"] for node in self._alive()}
        started = self._start_node(shape)
        self._until_up(before)
        return started

    def kill(self, node: LocalNode) -> None:
        """Kill a node, with everything that runs on it."""
        node.kill()
        self.nodes.remove(node)

    def stop(self) -> None:
        """End all processes; a second call does nothing."""
        # The head is stopped last: without it, the others would wait for it before they end.
        for nodes in (self.nodes[1:], self.nodes[:1]):
            for node in nodes:
                node.ask_to_stop()
            for node in nodes:
                node.wait()
        self.nodes.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def check(self) -> None:
        """Raise an error if the head has ended by itself, because without it there is no cluster."""
        if self.nodes and not self.nodes[0].running:
            raise ClusterError(f"the head has ended: {self.nodes[0].last_words()}")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start_head(self, shape: NodeShape) -> None:
        port = free_port()
        command = head_command(shape, self.folder / "ray", port, self._port)
        self._launch("head", command)
        self._gcs = f"{self._until_up(set())['node_ip']}:{port}"

    def _start_node(self, shape: NodeShape) -> LocalNode:
        self._made += 1
        return self._launch(f"node-{self._made}", node_command(shape, self._gcs))

    def _launch(self, name: str, command: Sequence[str]) -> LocalNode:
        node = LocalNode(name, command, environment(self.token_file), self.folder / f"{name}.log")
        self.nodes.append(node)
        return node

    def _until_up(self, before: set[str]) -> dict[str, Any]:
        """Wait for a node that is not among ``before``, and return the cluster's record of it."""
        end = time.monotonic() + START_SECONDS
        while True:
            for row in self._alive():
                if row["node_id"] not in before:
                    return row
            for node in self.nodes:
                if not node.running:
                    raise ClusterError(f"{node.name} of the local cluster does not start: {node.last_words()}")
            if time.monotonic() >= end:
                raise ClusterError(
                    f"{self.nodes[-1].name} of the local cluster is not up after {START_SECONDS:.0f} s: "
                    f"{self._complaint or self.nodes[-1].last_words()}"
                )
            time.sleep(LOOK_SECONDS)

    def _alive(self) -> list[dict[str, Any]]:
        """Return the records of the live nodes; none while the cluster does not answer."""
        try:
            with Jobs("local", self.context) as jobs:
                answer = jobs.read("/api/v0/nodes?limit=1000")
        except ClusterError as error:  # the dashboard's parts start one after the other
            self._complaint = str(error)
            return []
        self._complaint = ""
        return [node for node in answer["data"]["result"]["result"] if node["state"] == "ALIVE"]


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ClusterError(
                f"port {port} of 127.0.0.1 is taken ({os.strerror(error.errno or 0)}): --port N"
            ) from None
