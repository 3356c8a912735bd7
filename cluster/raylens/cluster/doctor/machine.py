"""Checks of a node's shared memory, disk and limit of open files."""

from collections.abc import Iterator

from raylens.cluster.doctor.facts import NodeFacts
from raylens.cluster.doctor.findings import Finding
from raylens.report import GIB, memory_text, percent_text

__all__ = ["judge_disk", "judge_files", "judge_shared_memory"]

NCCL_BYTES = GIB
"""Shared memory through which the GPUs of a node exchange data if they have no other way."""
LITTLE_DISK, NO_DISK = 0.10, 0.05
"""Free shares of a disk that are a warning and a failure: below the latter, Ray refuses to spill objects."""
FILES = 65_536
"""The limit of open files that Ray recommends; each worker process and each connection takes some."""


def judge_shared_memory(node: NodeFacts) -> Iterator[Finding]:
    """Yield a finding about /dev/shm, which holds Ray's objects; if it is too small, Ray uses the slow disk."""
    check, shared = "shared memory", node.shared
    grow = "Kubernetes: an emptyDir with medium: Memory at /dev/shm; Docker: --shm-size; a machine: remount /dev/shm"
    if shared is None:
        yield Finding(check, node.name, "failed", "there is no /dev/shm", f"mount a tmpfs there ({grow})", "none")
        return
    wanted = node.object_store + (NCCL_BYTES if node.gpus > 1 else 0)
    short = memory_text(shared.total)
    measured = (
        f"{short} at /dev/shm ({node.shared_kind or 'not a mount of its own'}), {memory_text(shared.free)} of it free"
    )
    measured += f"; Ray's objects may take {memory_text(node.object_store)}"
    if node.shared_kind not in ("tmpfs", None):
        yield Finding(check, node.name, "warning", measured, f"mount a tmpfs at /dev/shm ({grow})", short)
    elif shared.total < node.object_store:
        yield Finding(check, node.name, "failed", measured, f"make /dev/shm at least {_gib(wanted)} ({grow})", short)
    elif shared.total < wanted:
        advice = f"make /dev/shm at least {_gib(wanted)}, so that NCCL has room beside Ray's objects ({grow})"
        yield Finding(check, node.name, "warning", measured, advice, short)
    else:
        yield Finding(check, node.name, "ok", measured, short=short)


def judge_disk(node: NodeFacts) -> Iterator[Finding]:
    """Yield a finding about the disk to which Ray writes logs and objects that do not fit into memory."""
    check, disk = "disk", node.disk
    if disk is None:
        advice = "check whether the folder is mounted (ray start --temp-dir)"
        yield Finding(check, node.name, "failed", f"{node.disk_path} cannot be read", advice, "?")
        return
    left, short = disk.free / disk.total if disk.total else 0.0, memory_text(disk.free, 0)
    measured = f"{short} free of {memory_text(disk.total, 0)} ({percent_text(left, 0)}) at {node.disk_path}"
    advice = "delete old sessions under Ray's temporary folder, or give the node a larger disk (ray start --temp-dir)"
    if left < NO_DISK:
        yield Finding(check, node.name, "failed", f"{measured}: Ray stops spilling objects here", advice, short)
    elif left < LITTLE_DISK:
        yield Finding(check, node.name, "warning", measured, advice, short)
    else:
        yield Finding(check, node.name, "ok", measured, short=short)


def judge_files(node: NodeFacts) -> Iterator[Finding]:
    """Yield a finding about the number of files that a process may open."""
    check, most = "open files", node.open_files
    if 0 <= most < FILES:
        advice = f"raise the limit to {FILES:,} before Ray starts (ulimit -n, LimitNOFILE of a service)"
        yield Finding(check, node.name, "warning", f"a process may open {most:,}", advice, f"{most:,}")
    else:
        shown = "no limit" if most < 0 else f"{most:,}"
        yield Finding(check, node.name, "ok", f"a process may open {shown}", short=shown)


def _gib(size: float) -> str:
    return memory_text(size)
