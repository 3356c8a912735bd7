"""The check whether versions agree among the nodes, and with the process that examines them."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from raylens.cluster.doctor.facts import NodeFacts
from raylens.cluster.doctor.findings import Finding

__all__ = ["judge_versions"]

CHECK = "versions"
STRICT = ("python", "ray", "torch", "deepspeed", "nccl")
"""Packages in which workers must not differ: they could not start together, or would compute different results."""
LOOSE = ("raylens", "numpy", "pyarrow", "driver")
ASKER = ("python", "ray", "raylens", "torch")
"""Packages in which the process that starts a run must agree with the nodes, which read what it sends."""
NEEDED = ("torch", "deepspeed")
HOW = "use one image, or one environment made from constraints.txt, on all nodes"


def judge_versions(nodes: Sequence[NodeFacts], asker: Mapping[str, str | None]) -> Iterator[Finding]:
    """Yield a finding for each node.

    Args:
        nodes: the facts of the cluster's nodes.
        asker: versions in the process that examines them, by package.
    """
    usual = {name: _usual([_version(node, name) for node in nodes]) for name in (*STRICT, *LOOSE)}
    for node in nodes:
        yield _judge(node, usual, asker)


def _judge(node: NodeFacts, usual: Mapping[str, str | None], asker: Mapping[str, str | None]) -> Finding:
    bad = [_differs(node, name, usual[name]) for name in STRICT]
    bad += [_differs_from_asker(node, name, asker) for name in ASKER if name != "raylens"]
    bad += [f"no {name}" for name in NEEDED if node.versions.get(name) is None and _trains(node)]
    bad += [f"torch does not load ({node.torch_error})"] if node.torch_error and node.versions.get("torch") else []
    weak = [_differs(node, name, usual[name]) for name in LOOSE]
    weak += [_differs_from_asker(node, "raylens", asker)]
    seen = ", ".join(f"{name} {version}" for name in (*STRICT, *LOOSE) if (version := _version(node, name)))
    problems, mild = [problem for problem in bad if problem], [problem for problem in weak if problem]
    if problems:
        return Finding(CHECK, node.name, "failed", f"{'; '.join(problems + mild)} ({seen})", HOW, "differ")
    if mild:
        return Finding(CHECK, node.name, "warning", f"{'; '.join(mild)} ({seen})", HOW, "differ")
    if node.versions.get("raylens") is None:
        advice = "`raylens jobs submit` brings raylens to the nodes; for other uses, choose an image that contains it"
        return Finding(CHECK, node.name, "warning", f"no raylens ({seen})", advice, "no raylens")
    return Finding(CHECK, node.name, "ok", seen, short=f"ray {node.versions.get('ray')}")


def _differs(node: NodeFacts, name: str, usual: str | None) -> str:
    version = _version(node, name)
    if version is None or usual is None or version == usual:
        return ""
    return f"{name} {version}, where most nodes have {usual}"


def _differs_from_asker(node: NodeFacts, name: str, asker: Mapping[str, str | None]) -> str:
    version, own = _comparable(name, node.versions.get(name)), _comparable(name, asker.get(name))
    if version is None or own is None or version == own:
        return ""
    return f"{name} {version}, where this process has {own}"


def _version(node: NodeFacts, name: str) -> str | None:
    return node.driver if name == "driver" else _comparable(name, node.versions.get(name))


def _comparable(name: str, version: str | None) -> str | None:
    """Return a version without torch's build: nodes with and without GPUs may have 2.13.0+cu130 and 2.13.0+cpu."""
    return version.partition("+")[0] if version and name == "torch" else version


def _usual(versions: Sequence[str | None]) -> str | None:
    counts = Counter(version for version in versions if version is not None)
    return max(counts, key=lambda version: (counts[version], version)) if counts else None


def _trains(node: NodeFacts) -> bool:
    """Return whether training workers may run on the node."""
    return node.group in ("", "train") and (node.cpus > 0 or node.gpus > 0)
