"""The check whether Ray, the driver and torch see the same GPUs on a node."""

from collections.abc import Iterator

from raylens.cluster.doctor.facts import NodeFacts
from raylens.cluster.doctor.findings import Finding

__all__ = ["judge_gpus"]

CHECK = "GPUs"


def judge_gpus(node: NodeFacts) -> Iterator[Finding]:
    """Yield a finding about the GPUs of a node; nothing about a node without GPUs."""
    ray, driver, torch = int(node.gpus), len(node.driver_gpus), len(node.torch_gpus)
    if node.driver_error:
        advice = "reboot the node, or replace it: its driver does not answer"
        yield Finding(CHECK, node.name, "failed", f"nvidia-smi: {node.driver_error}", advice, "no driver")
        return
    if not ray and not driver and not torch:
        return
    counts = f"Ray allocates {ray}, nvidia-smi lists {driver}, torch can use {torch}"
    names = ", ".join(dict.fromkeys(node.torch_gpus or node.driver_gpus))
    if torch < ray:
        yield Finding(CHECK, node.name, "failed", counts, _why_not(node), f"{torch} of {ray}")
    elif ray < torch:
        advice = "start Ray without --num-gpus, or with their number: the others stay idle"
        yield Finding(CHECK, node.name, "warning", counts, advice, f"{ray} of {torch}")
    elif len(set(node.torch_gpus)) > 1:
        advice = "use machines of one kind in a group: the slowest GPU determines the speed of all"
        yield Finding(CHECK, node.name, "warning", f"{counts}: {names}", advice, "mixed")
    else:
        yield Finding(CHECK, node.name, "ok", f"{counts}: {names}", short=f"{ray} x {names}")


def _why_not(node: NodeFacts) -> str:
    if node.versions.get("torch") is None:
        return "install torch on the node"
    if node.versions.get("cuda") is None:
        return f"torch {node.versions['torch']} is a build without CUDA: use an image with one that has it"
    if not node.driver_gpus:
        return "the node cannot access a driver: request GPUs for its container (nvidia.com/gpu), or lower --num-gpus"
    return (
        f"torch was built for CUDA {node.versions['cuda']}, the driver is {node.driver}: update the driver, or use a "
        "build for an older CUDA"
    )
