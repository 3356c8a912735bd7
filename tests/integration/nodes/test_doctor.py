"""The examination of a cluster of several raylets, with stores that can and cannot be used, and a node that hangs."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from raylens.cluster import session
from raylens.cluster.doctor import CLUSTER, Limits, Report, examine
from tests.integration.nodes.conftest import HEAD, raylets_with
from tests.integration.nodes.monkey import NODE

LIMITS = Limits(seconds=120, megabytes=2, reduced_megabytes=1)


@pytest.fixture(scope="module")
def three(open_to_all: None) -> Iterator[Cluster]:
    """A head and two nodes, for all tests: who stops one lets it go on."""
    with raylets_with(HEAD) as cluster:
        for _ in range(2):
            cluster.add_node(**NODE)
        yield cluster


def statuses(report: Report, check: str) -> list[str]:
    return [one.status for node in (*report.nodes, CLUSTER) for one in report.at(node, check)]


def test_every_node_is_examined(three: Cluster, s3_bucket: str, tmp_path: Path) -> None:
    said: list[str] = []
    with session(three.address):
        report = examine(s3_bucket, LIMITS, said.append)
        assert len(report.nodes) == 3
        for check in ("versions", "clock", "shared memory", "disk", "open files", "storage", "bandwidth"):
            assert len([node for node in report.nodes if report.at(node, check)]) == 3, check
        assert {status for check in ("versions", "storage") for status in statuses(report, check)} == {"ok"}
        assert statuses(report, "all-reduce (gloo)") == ["ok"]
        (reduced,) = report.at(CLUSTER, "all-reduce (gloo)")
        assert "3 processes on 3 nodes" in reduced.found
        assert statuses(report, "token") == ["warning"]
        assert "examining the nodes: 3 of 3 nodes" in said
        assert not bucket_keys(s3_bucket)

        wrong = examine(s3_bucket.replace("s3://raylens-", "s3://raylens-nowhere-"), LIMITS, said.append)
        assert statuses(wrong, "storage") == ["failed"] * 3
        found = [one.found for one in wrong.findings if one.check == "storage"]
        assert all("raylens-nowhere-" in text and text.startswith("list: ") for text in found), found
        # A file system that takes no folders, whoever asks.
        closed = examine("/sys/kernel", LIMITS, said.append)
        assert statuses(closed, "storage") == ["failed"] * 3
        assert {one.short for one in closed.findings if one.check == "storage"} == {"write"}
        assert not statuses(closed, "bandwidth")


def bucket_keys(uri: str) -> list[str]:
    from raylens.storage import open_store

    return [one.path for one in open_store(uri).list()]


@pytest.mark.slow
def test_the_command_ends_with_1_where_something_failed(three: Cluster, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("raylens")), "doctor", "--cluster", three.address, "--megabytes", "1"]
    for storage, status in ((str(tmp_path), 0), ("/sys/kernel", 1)):
        done = subprocess.run([*command, "--storage", storage, "--json"], capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
        tree: dict[str, Any] = json.loads(done.stdout)
        assert (tree["failed"] > 0) == (status == 1)
        assert len(tree["nodes"]) == 3
    with contextlib.suppress(FileNotFoundError):
        assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_node_that_hangs_is_named_and_the_others_reported(three: Cluster) -> None:
    """Its raylet is stopped, not ended: it is there, and answers nobody."""
    victim = next(iter(three.worker_nodes))
    raylet = victim.all_processes["raylet"][0].process.pid
    with session(three.address):
        os.kill(raylet, signal.SIGSTOP)
        try:
            report = examine(None, Limits(seconds=45, reduced_megabytes=1), lambda _: None)
        finally:
            os.kill(raylet, signal.SIGCONT)
    silent = report.with_status("failed")
    assert [one.check for one in silent] == ["answers"]
    assert victim.node_id[:6] in silent[0].node
    assert len([node for node in report.nodes if report.at(node, "disk")]) == 2
    assert statuses(report, "all-reduce (gloo)") == ["ok"]
