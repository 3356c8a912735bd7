"""Whether the nodes run the same versions of what has to agree, and the same as the process that asks."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from raylens.cluster.doctor.facts import NodeFacts
from raylens.cluster.doctor.findings import Finding

__all__ = ["judge_versions"]

CHECK = "versions"
STRICT = ("python", "ray", "torch", "deepspeed", "nccl")
"""Workers that differ in these cannot start together, or compute something else."""
LOOSE = ("raylens", "numpy", "pyarrow", "driver")
ASKER = ("python", "ray", "raylens", "torch")
"""In which the process that starts a run has to agree with the nodes: what it sends is read there."""
NEEDED = ("torch", "deepspeed")
HOW = "use one image, or one environment made from constraints.txt, on all nodes"


def judge_versions(nodes: Sequence[NodeFacts], asker: Mapping[str, str | None]) -> Iterator[Finding]:
    """A finding for each node.

    Args:
        nodes: of the cluster.
        asker: versions of the process that asks, by name.
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
    seen = ", ".join(f"{name} {found}" for name in (*STRICT, *LOOSE) if (found := _version(node, name)))
    problems, mild = [one for one in bad if one], [one for one in weak if one]
    if problems:
        return Finding(CHECK, node.name, "failed", f"{'; '.join(problems + mild)} ({seen})", HOW, "differ")
    if mild:
        return Finding(CHECK, node.name, "warning", f"{'; '.join(mild)} ({seen})", HOW, "differ")
    if node.versions.get("raylens") is None:
        advice = "`raylens jobs submit` brings it along; for raylens on this cluster otherwise, use an image with it"
        return Finding(CHECK, node.name, "warning", f"no raylens ({seen})", advice, "no raylens")
    return Finding(CHECK, node.name, "ok", seen, short=f"ray {node.versions.get('ray')}")


def _differs(node: NodeFacts, name: str, usual: str | None) -> str:
    found = _version(node, name)
    if found is None or usual is None or found == usual:
        return ""
    return f"{name} {found}, where most nodes have {usual}"


def _differs_from_asker(node: NodeFacts, name: str, asker: Mapping[str, str | None]) -> str:
    found, wanted = _comparable(name, node.versions.get(name)), _comparable(name, asker.get(name))
    if found is None or wanted is None or found == wanted:
        return ""
    return f"{name} {found}, where this process has {wanted}"


def _version(node: NodeFacts, name: str) -> str | None:
    return node.driver if name == "driver" else _comparable(name, node.versions.get(name))


def _comparable(name: str, version: str | None) -> str | None:
    """Nodes with and without GPUs have builds of torch of their own: 2.13.0+cu130 and 2.13.0+cpu go together."""
    return version.partition("+")[0] if version and name == "torch" else version


def _usual(versions: Sequence[str | None]) -> str | None:
    there = Counter(version for version in versions if version is not None)
    return max(there, key=lambda version: (there[version], version)) if there else None


def _trains(node: NodeFacts) -> bool:
    """Whether training workers may be on the node."""
    return node.group in ("", "train") and (node.cpus > 0 or node.gpus > 0)
