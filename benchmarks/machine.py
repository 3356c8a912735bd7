"""The machine that figures are from, and the share of its cores that Ray's workers got: one JSON line a benchmark."""

import json
import os
import platform
from pathlib import Path

import psutil
import ray
import torch

SETS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "asimd", "bf16", "sve", "i8mm")
"""Instruction sets that decide how fast products are, as Linux names them."""
DAEMONS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")


def tell_machine(worker_niceness: int | None) -> None:
    """Print the line. Beside workers niced to 15, Ray's own default, a load program takes the cores from them."""
    known = _cpuinfo()
    flags = set((known.get("flags") or known.get("Features") or "").split())
    machine = {
        "processor": known.get("model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "instruction_sets": [name for name in SETS if name in flags],
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "torch": torch.__version__,
        "ray": ray.__version__,
        "own_niceness": psutil.Process().nice(),
        "worker_niceness": worker_niceness,
    }
    print(json.dumps({"machine": machine}), flush=True)


def worker_niceness() -> int:
    """The niceness of a worker of the session that this process is in."""
    found: int = ray.get(ray.remote(lambda: psutil.Process().nice()).options(num_cpus=0).remote())
    return found


def niceness_below(pid: int) -> int:
    """The niceness of the workers that a command has started, which are all alike."""
    workers = [one for one in psutil.Process(pid).children(recursive=True) if _is_worker(one)]
    [found] = {one.nice() for one in workers}
    return found


def _is_worker(process: psutil.Process) -> bool:
    words = " ".join(process.cmdline())
    return words.startswith("ray::") and not words.startswith(DAEMONS)


def _cpuinfo() -> dict[str, str]:
    """What Linux says of the first processor; nothing on other systems."""
    file = Path("/proc/cpuinfo")
    if not file.exists():
        return {}
    first = file.read_text().split("\n\n", 1)[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
