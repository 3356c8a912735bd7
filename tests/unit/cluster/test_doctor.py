"""What the doctor makes of what it is told: each family of checks, on invented nodes."""

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray import cloudpickle
from rich.console import Console

from raylens.cluster.doctor import CLUSTER, Finding, Report, probe, store_probe
from raylens.cluster.doctor.clock import Offset, judge_clocks, offset_of
from raylens.cluster.doctor.collective import Ranks, judge_all_reduce
from raylens.cluster.doctor.control import judge_autoscaler, judge_groups, judge_tokens
from raylens.cluster.doctor.facts import NodeFacts, Space
from raylens.cluster.doctor.gpus import judge_gpus
from raylens.cluster.doctor.machine import judge_disk, judge_files, judge_shared_memory
from raylens.cluster.doctor.probes import BY_VALUE
from raylens.cluster.doctor.store import judge_store
from raylens.cluster.doctor.versions import judge_versions
from raylens.placement import Group, GroupSize, node_labels
from raylens.storage.local import LocalStore
from raylens.workloads.pages.doctor import doctor_page

GIB = 2**30
VERSIONS = {
    "python": "3.11.9",
    "ray": "2.60.0",
    "raylens": "0.1.0",
    "torch": "2.13.0+cu130",
    "deepspeed": "0.19.8",
    "numpy": "2.3.0",
    "pyarrow": "23.0.0",
    "cuda": "13.0",
    "nccl": "2.29.1",
}
NODE = NodeFacts(
    name="n1",
    cpus=32,
    gpus=8,
    object_store=64 * GIB,
    versions=VERSIONS,
    torch_gpus=("H100",) * 8,
    driver_gpus=("H100",) * 8,
    driver="580.65",
    shared=Space(100 * GIB, 100 * GIB),
    shared_kind="tmpfs",
    disk=Space(500 * GIB, 400 * GIB),
    disk_path="/tmp/ray/session",
    open_files=1_048_576,
    auth_mode="token",
)


def with_versions(node: NodeFacts, name: str, **versions: str | None) -> NodeFacts:
    return replace(node, name=name, versions={**node.versions, **versions})


def by_node(findings: Any) -> dict[str, Finding]:
    return {one.node: one for one in findings}


def test_a_good_node_has_nothing_to_mend() -> None:
    found = [*judge_versions([NODE], VERSIONS), *judge_shared_memory(NODE), *judge_disk(NODE), *judge_files(NODE)]
    found += judge_gpus(NODE)
    assert {one.status for one in found} == {"ok"}
    assert not any(one.advice for one in found)
    assert [one.check for one in found] == ["versions", "shared memory", "disk", "open files", "GPUs"]


@pytest.mark.parametrize(
    ("name", "version", "status"),
    [
        ("python", "3.12.1", "failed"),
        ("ray", "2.59.0", "failed"),
        ("torch", "2.12.1+cu130", "failed"),
        ("deepspeed", "0.18.0", "failed"),
        ("nccl", "2.28.3", "failed"),
        ("numpy", "2.2.0", "warning"),
        ("raylens", "0.0.9", "warning"),
    ],
)
def test_the_node_that_differs_is_named_with_both_versions(name: str, version: str, status: str) -> None:
    nodes = [with_versions(NODE, "a"), with_versions(NODE, "b", **{name: version}), with_versions(NODE, "c")]
    found = by_node(judge_versions(nodes, VERSIONS))
    assert (found["a"].status, found["b"].status, found["c"].status) == ("ok", status, "ok")
    usual = VERSIONS[name].partition("+")[0]
    assert f"{name} {version.partition('+')[0]}, where most nodes have {usual}" in found["b"].found
    assert "one image" in found["b"].advice


def test_builds_of_torch_may_differ_and_gpu_drivers_should_not() -> None:
    cpu = replace(with_versions(NODE, "cpu", torch="2.13.0+cpu", nccl=None, cuda=None), driver=None)
    other = replace(with_versions(NODE, "other"), driver="570.1")
    found = by_node(judge_versions([NODE, replace(NODE, name="n2"), cpu, other], VERSIONS))
    assert (found["cpu"].status, found["other"].status) == ("ok", "warning")
    assert "driver 570.1, where most nodes have 580.65" in found["other"].found


def test_versions_are_compared_with_the_process_that_asks() -> None:
    found = by_node(judge_versions([NODE], {**VERSIONS, "python": "3.12.4", "torch": "2.13.0+cpu"}))["n1"]
    assert found.status == "failed"
    assert "python 3.11.9, where this process has 3.12.4" in found.found
    assert "torch 2.13.0, where" not in found.found


def test_what_is_missing_matters_where_it_is_used() -> None:
    head = replace(with_versions(NODE, "head", deepspeed=None), group="head", cpus=0, gpus=0)
    decode = replace(with_versions(NODE, "decode", deepspeed=None), group="decode", gpus=0)
    train = replace(with_versions(NODE, "train", deepspeed=None), group="train")
    bare = with_versions(NODE, "bare", raylens=None)
    broken = replace(NODE, name="broken", torch_error="OSError: libcudart.so.13: cannot open")
    found = by_node(judge_versions([head, decode, train, bare, broken], VERSIONS))
    assert [found[name].status for name in ("head", "decode", "train")] == ["ok", "ok", "failed"]
    assert "no deepspeed" in found["train"].found
    assert found["bare"].status == "warning"
    assert "jobs submit" in found["bare"].advice
    assert found["broken"].status == "failed"
    assert "libcudart" in found["broken"].found


@pytest.mark.parametrize(
    ("changes", "status", "text"),
    [
        ({"shared": None}, "failed", "no /dev/shm"),
        ({"shared": Space(GIB // 16, GIB // 16)}, "failed", "0.1 GiB"),
        ({"shared": Space(64 * GIB, 64 * GIB)}, "warning", "64.0 GiB"),
        ({"shared": Space(64 * GIB, 64 * GIB), "gpus": 0}, "ok", "64.0 GiB"),
        ({"shared_kind": "overlay"}, "warning", "overlay"),
    ],
)
def test_shared_memory_holds_rays_objects_and_nccls(changes: dict[str, Any], status: str, text: str) -> None:
    (found,) = judge_shared_memory(replace(NODE, **changes))
    assert found.status == status
    assert text in found.found
    assert ("medium: Memory" in found.advice) == (status != "ok")


@pytest.mark.parametrize(("free", "status"), [(30, "ok"), (9, "warning"), (4, "failed")])
def test_a_full_disk_stops_spilling(free: int, status: str) -> None:
    (found,) = judge_disk(replace(NODE, disk=Space(100 * GIB, free * GIB)))
    assert (found.status, found.short) == (status, f"{free} GiB")
    (gone,) = judge_disk(replace(NODE, disk=None))
    assert gone.status == "failed"


def test_open_files() -> None:
    (few,) = judge_files(replace(NODE, open_files=1024))
    assert (few.status, few.short) == ("warning", "1,024")
    assert "65,536" in few.advice
    (unbounded,) = judge_files(replace(NODE, open_files=-1))
    assert unbounded.status == "ok"


@pytest.mark.parametrize(
    ("changes", "status", "advice"),
    [
        ({"torch_gpus": (), "versions": {**VERSIONS, "cuda": None}}, "failed", "build without CUDA"),
        ({"torch_gpus": (), "versions": {**VERSIONS, "torch": None}}, "failed", "install torch"),
        ({"torch_gpus": (), "driver_gpus": (), "driver": None}, "failed", "nvidia.com/gpu"),
        ({"torch_gpus": ()}, "failed", "the driver is 580.65"),
        ({"torch_gpus": ("H100",) * 7}, "failed", "update the driver"),
        ({"gpus": 4}, "warning", "--num-gpus"),
        ({"torch_gpus": ("H100",) * 7 + ("A100",)}, "warning", "of one kind"),
        ({"driver_error": "Driver/library version mismatch"}, "failed", "does not answer"),
    ],
)
def test_gpus_are_the_same_for_ray_the_driver_and_torch(changes: dict[str, Any], status: str, advice: str) -> None:
    (found,) = judge_gpus(replace(NODE, **changes))
    assert found.status == status
    assert advice in found.advice


def test_a_node_without_gpus_has_nothing_to_be_said_of() -> None:
    assert not list(judge_gpus(replace(NODE, gpus=0, torch_gpus=(), driver_gpus=(), driver=None)))


@given(
    st.floats(-1e6, 1e6),
    st.lists(st.tuples(st.floats(0, 2), st.floats(0, 2)), min_size=1, max_size=8),
    st.floats(0, 1e6),
)
def test_the_true_offset_lies_within_the_bound(ahead: float, ways: list[tuple[float, float]], start: float) -> None:
    """Whatever each way takes: the clock is read between them."""
    rounds = [
        (start + 10 * n, start + 10 * n + there + ahead, start + 10 * n + there + back)
        for n, (there, back) in enumerate(ways)
    ]
    found = offset_of(rounds)
    assert abs(found.seconds - ahead) <= found.bound + 1e-6
    assert found.bound == pytest.approx(min(there + back for there, back in ways) / 2, abs=1e-6)


def test_clocks_are_compared_with_each_other_and_not_with_ours() -> None:
    """This process is an hour off, one node 5 s, another 90 s; the others agree."""
    offsets = {"a": 3600.0, "b": 3600.01, "c": 3605.0, "d": 3690.0, "e": 3599.99}
    found = by_node(judge_clocks({name: Offset(seconds, 0.002) for name, seconds in offsets.items()}))
    assert [found[name].status for name in "abcde"] == ["ok", "ok", "warning", "failed", "ok"]
    assert "+90.0" in found["d"].short or "+89.9" in found["d"].short
    assert "refuse" in found["d"].advice
    assert "between e and d" in found[CLUSTER].found
    # What is not known better than that is no reason to complain.
    unsure = by_node(judge_clocks({"a": Offset(0.0, 0.1), "b": Offset(0.0, 0.1), "c": Offset(4.0, 3.5)}))
    assert unsure["c"].status == "ok"


def test_what_a_node_cannot_do_with_a_store_is_said_by_step() -> None:
    good: dict[str, Any] = {
        "list": [],
        "write": None,
        "read": None,
        "conditional": None,
        "write_rate": 200.0,
        "read_rate": 400.0,
    }
    answers: dict[str, dict[str, Any]] = {
        "a": good,
        "b": good | {"read_rate": 100.0},
        "c": {"list": [], "failed": "write", "error": "access denied"},
        "d": {"missing": "No module named 'raylens'"},
        "e": good | {"unseen": ["x/node-0.txt"]},
        "f": good | {"left": "access denied"},
    }
    found = list(judge_store(answers, "s3://b"))
    of = {(one.node, one.check): one for one in found}
    assert of["a", "storage"].status == "ok"
    assert of["a", "bandwidth"].short == "200 / 400 MB/s"
    assert (of["b", "storage"].status, of["b", "bandwidth"].status) == ("ok", "warning")
    assert "the median is 400 MB/s read" in of["b", "bandwidth"].found
    assert (of["c", "storage"].status, of["c", "storage"].found) == ("failed", "write: access denied")
    assert ("c", "bandwidth") not in of
    assert (of["d", "storage"].status, of["e", "storage"].status) == ("warning", "failed")
    assert of["e", "storage"].short == "not shared"
    assert of["f", "storage"].status == "warning"


def test_who_did_not_come_to_the_all_reduce_is_named() -> None:
    ranks = Ranks("gloo", "10.0.0.1:4000", ("a", "b", "c"))
    missing: list[dict[str, Any]] = [
        {"missing": [2]},
        {"missing": [2]},
        {"error": "DistNetworkError: connection refused"},
    ]
    (found,) = judge_all_reduce(ranks, missing)
    assert (found.node, found.status) == ("c", "failed")
    assert "10.0.0.1:4000" in found.found
    assert "connection refused" in found.found
    good: dict[str, Any] = {"right": True, "seconds": 0.1, "rate": 1.5}
    (slowest,) = judge_all_reduce(ranks, [good, good | {"seconds": 0.2, "rate": 0.75}, good])
    assert (slowest.node, slowest.status, slowest.short) == (CLUSTER, "ok", "0.75 GB/s")
    (wrong,) = judge_all_reduce(ranks, [good, good | {"right": False}, good])
    assert "wrong on b" in wrong.found
    failed = list(judge_all_reduce(replace(ranks, backend="nccl"), [good, {"error": "NCCL error"}, good]))
    assert [(one.node, one.status) for one in failed] == [("b", "failed")]
    assert "NCCL_SOCKET_IFNAME" in failed[0].advice


def test_a_cluster_without_a_token_is_open_to_whoever_reaches_it() -> None:
    (closed,) = judge_tokens([NODE], "token", own=False)
    (open_,) = judge_tokens([replace(NODE, auth_mode="")], "token", own=False)
    (own,) = judge_tokens([replace(NODE, auth_mode="")], "", own=True)
    assert [one.status for one in (closed, open_, own)] == ["ok", "warning", "ok"]
    assert "RAY_AUTH_MODE=token" in open_.advice


def test_the_autoscaler_says_what_it_cannot_make() -> None:
    state: dict[str, Any] = {"seen": True, "coming": [], "failed": [], "infeasible": []}
    assert [one.status for one in judge_autoscaler(state)] == ["ok"]
    assert not list(judge_autoscaler(state | {"seen": False}))
    (failing,) = judge_autoscaler(state | {"failed": ["train: quota exceeded"]})
    assert failing.status == "warning"
    assert "quota exceeded" in failing.found
    (never,) = judge_autoscaler(state | {"infeasible": ["{'GPU': 9.0}"]})
    assert never.status == "warning"
    (unknown,) = judge_autoscaler({"unknown": "ModuleNotFoundError: No module named 'raylens'"})
    assert unknown.status == "warning"


def test_groups_are_counted_and_strangers_named() -> None:
    groups: dict[Group, GroupSize] = {"decode": GroupSize(2, 4), "train": GroupSize(8, 8, 8)}
    labels = {"h": node_labels("head", groups), "d": node_labels("decode", groups)}
    (found,) = judge_groups(labels)
    assert (found.status, found.short) == ("ok", "decode 1 of at most 2, train 0 of at most 8")
    (stranger,) = judge_groups({**labels, "x": {}})
    assert stranger.status == "warning"
    assert "nodes of no group: x" in stranger.found
    assert not list(judge_groups({"a": {}}))


def test_facts_are_read_from_a_nodes_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(probe, "session_folder", lambda: str(tmp_path))
    told = probe.Probe().facts("import json; print(json.dumps({'torch': '2.13.0', 'cuda': None, 'gpus': []}))")
    row = {"Resources": {"CPU": 2.0, "object_store_memory": 1e8}, "Labels": {"raylens.io/group": "train"}}
    told["shared"] = [10, 5]
    found = NodeFacts.of("n", row, json.loads(json.dumps(told)))
    assert (found.cpus, found.gpus, found.group, found.shared) == (2.0, 0.0, "train", Space(10, 5))
    assert found.versions["ray"] == probe.versions()["ray"]
    assert not found.torch_error
    broken = probe.Probe().facts("raise SystemExit('no such library')")
    assert "no such library" in NodeFacts.of("n", row, broken).torch_error


def test_a_page_has_the_worst_in_its_cells_and_each_advice_once() -> None:
    findings = [
        Finding("disk", "a", "ok", "fine", short="9 GiB"),
        Finding("disk", "b", "failed", "full", "delete", "0 GiB"),
        Finding("open files", "a", "warning", "few", "raise it", "1,024"),
        Finding("open files", "b", "warning", "few", "raise it", "1,024"),
        Finding("token", CLUSTER, "ok", "on"),
    ]
    report = Report.of(["a", "b"], findings)
    console = Console(file=io.StringIO(), width=100)
    for part in doctor_page(report, as_json=False):
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "FAILED 0 GiB" in text
    assert text.count("raise it") == 1
    assert "open files, a, b: few" in text
    assert "2 nodes: 1 failed, 2 warnings, 2 ok" in text
    (line,) = doctor_page(report, as_json=True)
    assert isinstance(line, str)
    tree = json.loads(line)
    assert (tree["failed"], tree["warning"], tree["nodes"]) == (1, 2, ["a", "b"])
    assert tree["findings"][1]["advice"] == "delete"


class Forgetful(LocalStore):
    """A store that heeds no condition, as some gateways do."""

    def write_once(self, path: str, data: bytes) -> None:
        self.write(path, data)


def test_a_store_is_tried_step_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = store_probe.try_store(str(tmp_path / "a"), "mine", "node-0", 1)
    assert "failed" not in good
    assert min(good["write_rate"], good["read_rate"]) > 0
    assert store_probe.unseen(str(tmp_path / "a"), ["mine/node-0.txt", "mine/node-1.txt"]) == {
        "unseen": ["mine/node-1.txt"]
    }
    assert store_probe.clean(str(tmp_path / "a"), "mine") == {}
    assert not [path for path in (tmp_path / "a").rglob("*") if path.is_file()]
    (tmp_path / "file").write_text("no folder")
    blocked = store_probe.try_store(str(tmp_path / "file" / "below"), "mine", "node-0", 1)
    assert blocked["failed"] in ("list", "write")
    monkeypatch.setattr(store_probe, "open_store", lambda _: Forgetful(str(tmp_path / "b")))
    forgetful = store_probe.try_store("any", "mine", "node-0", 1)
    assert (forgetful["failed"], "If-None-Match" in forgetful["error"]) == ("conditional", True)


def test_a_store_to_read_from_is_only_read(tmp_path: Path) -> None:
    assert store_probe.read_only(str(tmp_path), 1)["failed"] == "list"
    (tmp_path / "shard.tar").write_bytes(b"x" * 1000)
    assert store_probe.read_only(str(tmp_path), 1)["read_rate"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["shard.tar"]


WITHOUT = """
import sys
class Absent:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "raylens":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
import pickle
probe = pickle.load(sys.stdin.buffer)()
print(probe.storage("x", "y", "z", 1, True), probe.now() > 0, probe.free_port() > 0)
"""


def test_a_probe_runs_where_there_is_no_raylens() -> None:
    for module in BY_VALUE:
        cloudpickle.register_pickle_by_value(module)
    try:
        sent = cloudpickle.dumps(probe.Probe)
    finally:
        for module in BY_VALUE:
            cloudpickle.unregister_pickle_by_value(module)
    done = subprocess.run([sys.executable, "-c", WITHOUT], input=sent, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().strip() == "{'missing': \"No module named 'raylens'\"} True True"
