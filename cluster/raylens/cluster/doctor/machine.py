"""Whether a node has the shared memory, the disk and the open files that its work takes."""

from collections.abc import Iterator

from raylens.cluster.doctor.facts import NodeFacts
from raylens.cluster.doctor.findings import Finding
from raylens.report.numbers import GIB, memory_text, percent_text

__all__ = ["judge_disk", "judge_files", "judge_shared_memory"]

NCCL_BYTES = GIB
"""Of shared memory that GPUs of one node exchange through, where they have no other way."""
LITTLE_DISK, NO_DISK = 0.10, 0.05
"""Shares of a disk: below the second Ray refuses to spill objects, and tasks that need it fail."""
FILES = 65_536
"""Ray's own advice; each worker process, and each connection to another, takes some."""


def judge_shared_memory(node: NodeFacts) -> Iterator[Finding]:
    """Ray keeps objects in /dev/shm; where that is too small it works from disk, many times as slowly."""
    check, shared = "shared memory", node.shared
    grow = "Kubernetes: an emptyDir with medium: Memory at /dev/shm; Docker: --shm-size; a machine: remount /dev/shm"
    if shared is None:
        yield Finding(check, node.name, "failed", "there is no /dev/shm", f"mount a tmpfs there ({grow})", "none")
        return
    wanted = node.object_store + (NCCL_BYTES if node.gpus > 1 else 0)
    short = memory_text(shared.total)
    found = (
        f"{short} at /dev/shm ({node.shared_kind or 'not a mount of its own'}), of it {memory_text(shared.free)} free"
    )
    found += f"; Ray's objects may take {memory_text(node.object_store)}"
    if node.shared_kind not in ("tmpfs", None):
        yield Finding(check, node.name, "warning", found, f"mount a tmpfs at /dev/shm ({grow})", short)
    elif shared.total < node.object_store:
        yield Finding(check, node.name, "failed", found, f"make /dev/shm at least {_gib(wanted)} ({grow})", short)
    elif shared.total < wanted:
        advice = f"make /dev/shm at least {_gib(wanted)}, so that NCCL has room beside Ray's objects ({grow})"
        yield Finding(check, node.name, "warning", found, advice, short)
    else:
        yield Finding(check, node.name, "ok", found, short=short)


def judge_disk(node: NodeFacts) -> Iterator[Finding]:
    """Where Ray logs, and spills what does not fit into memory."""
    check, disk = "disk", node.disk
    if disk is None:
        advice = "see whether the folder is mounted (ray start --temp-dir)"
        yield Finding(check, node.name, "failed", f"{node.disk_path} cannot be looked at", advice, "?")
        return
    left, short = disk.free / disk.total if disk.total else 0.0, memory_text(disk.free, 0)
    found = f"{short} free of {memory_text(disk.total, 0)} ({percent_text(left, 0)}) at {node.disk_path}"
    advice = "delete old sessions under Ray's temporary folder, or give the node a larger disk (ray start --temp-dir)"
    if left < NO_DISK:
        yield Finding(check, node.name, "failed", f"{found}: Ray stops spilling objects here", advice, short)
    elif left < LITTLE_DISK:
        yield Finding(check, node.name, "warning", found, advice, short)
    else:
        yield Finding(check, node.name, "ok", found, short=short)


def judge_files(node: NodeFacts) -> Iterator[Finding]:
    """Open files of a process."""
    check, most = "open files", node.open_files
    if 0 <= most < FILES:
        advice = f"raise the limit to {FILES:,} before Ray starts (ulimit -n, LimitNOFILE of a service)"
        yield Finding(check, node.name, "warning", f"a process may open {most:,}", advice, f"{most:,}")
    else:
        shown = "no limit" if most < 0 else f"{most:,}"
        yield Finding(check, node.name, "ok", f"a process may open {shown}", short=shown)


def _gib(size: float) -> str:
    return memory_text(size)
