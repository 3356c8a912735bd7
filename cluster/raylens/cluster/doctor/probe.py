"""The actor that examines each node. It is sent by value, because nodes may not have raylens.

Therefore the actor uses only the standard library, Ray, and what is sent with it, and answers with plain values.
"""

import contextlib
import json
import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from raylens.ray_internals import session_folder

__all__ = ["PACKAGES", "Probe", "versions"]

PACKAGES = ("ray", "raylens", "torch", "deepspeed", "numpy", "pyarrow")
SHARED_MEMORY = "/dev/shm"  # noqa: S108 (not a temporary file: where Ray keeps its objects)
PROGRAM_SECONDS = 120.0
"""Seconds that importing torch may take on a cold disk."""
TOOL_SECONDS = 20.0
SMI = ("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader,nounits")


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of packages; None for a package that is not installed."""
    installed: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed[name] = None
    return installed


class Probe:
    """An actor that reserves no CPU and needs little memory: only programs that it starts import torch."""

    def facts(self, torch_program: str) -> dict[str, Any]:
        """Return everything that is known without using the network."""
        return {
            "versions": versions(),
            "torch": _last_json(_run((sys.executable, "-c", torch_program), PROGRAM_SECONDS)),
            "smi": _smi(),
            "shared": _space(SHARED_MEMORY),
            "shared_kind": _file_system(SHARED_MEMORY),
            "disk": _space(session_folder()),
            "disk_path": session_folder(),
            "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "auth_mode": os.environ.get("RAY_AUTH_MODE", ""),
        }

    def now(self) -> float:
        """Return the node's clock, in seconds since 1970."""
        return time.time()

    def storage(self, uri: str, folder: str, name: str, megabytes: int, writable: bool) -> dict[str, Any]:
        """Write to a store and read from it; see `raylens.cluster.doctor.store_probe`."""
        try:
            from raylens.cluster.doctor.store_probe import read_only, try_store
        except ImportError as error:
            return {"missing": str(error)}
        return try_store(uri, folder, name, megabytes) if writable else read_only(uri, megabytes)

    def sees(self, uri: str, paths: list[str]) -> dict[str, Any]:
        """Return those objects of other nodes that this node does not see."""
        from raylens.cluster.doctor.store_probe import unseen

        return unseen(uri, paths)

    def clean(self, uri: str, folder: str) -> dict[str, Any]:
        """Delete the folder to which the nodes wrote."""
        from raylens.cluster.doctor.store_probe import clean

        return clean(uri, folder)

    def free_port(self) -> int:
        """Return a free port, at which the processes of an all-reduce can meet."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return int(probe.getsockname()[1])

    def run(self, program: str, arguments: list[list[str]], seconds: float) -> list[dict[str, Any]]:
        """Run a program several times at once, with arguments for each; return the JSON that each wrote last."""
        begun = [
            subprocess.Popen(  # noqa: S603 (a program of raylens' own)
                (sys.executable, "-c", program, *words),
                env=_environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for words in arguments
        ]
        end = time.monotonic() + seconds
        return [_last_json(_wait(process, end - time.monotonic())) for process in begun]


def _run(command: tuple[str, ...], seconds: float) -> str:
    try:
        done = subprocess.run(  # noqa: S603 (a program of raylens' own)
            command, env=_environment(), capture_output=True, text=True, timeout=seconds, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return json.dumps({"error": str(error)})
    return done.stdout if done.stdout.strip() else json.dumps({"error": (done.stderr.strip() or "no output")[-300:]})


def _wait(process: "subprocess.Popen[str]", seconds: float) -> str:
    try:
        return process.communicate(timeout=max(0.1, seconds))[0]
    except subprocess.TimeoutExpired:
        process.kill()
        text = process.communicate()[0]
        return json.dumps({"error": f"did not end in time; its last words: {text.strip()[-300:]!r}"})


def _last_json(text: str) -> dict[str, Any]:
    """Return the last JSON object of an output, around which libraries may write warnings."""
    for line in reversed(text.splitlines()):
        with contextlib.suppress(ValueError):
            tree = json.loads(line)
            if isinstance(tree, dict):
                return tree
    return {"error": text.strip()[-300:] or "it said nothing"}


def _smi() -> dict[str, Any]:
    """Return the GPUs that the driver lists; none, without an error, on a machine without a driver."""
    if shutil.which(SMI[0]) is None:
        return {"gpus": []}
    try:
        done = subprocess.run(  # noqa: S603 (the driver's own tool, found through PATH)
            SMI, capture_output=True, text=True, timeout=TOOL_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"gpus": [], "error": str(error)}
    if done.returncode:
        return {"gpus": [], "error": (done.stdout + done.stderr).strip()[-300:]}
    rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if line.strip()]
    return {"gpus": [row[0] for row in rows], "driver": rows[0][1] if rows else None}


def _environment() -> dict[str, str]:
    """Return this process's variables, but with the node's GPUs: Ray hides them from actors that reserve none."""
    variables = dict(os.environ)
    visible = _raylet_variable("CUDA_VISIBLE_DEVICES")
    variables.pop("CUDA_VISIBLE_DEVICES", None)
    return variables if visible is None else variables | {"CUDA_VISIBLE_DEVICES": visible}


def _raylet_variable(name: str) -> str | None:
    """Return a variable of the raylet, which started this process."""
    try:
        entries = Path(f"/proc/{os.getppid()}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    prefix = f"{name}=".encode()
    return next((entry[len(prefix) :].decode() for entry in entries if entry.startswith(prefix)), None)


def _space(path: str) -> list[int] | None:
    """Return the total and free bytes of a file system; None if the folder does not exist."""
    try:
        usage = shutil.disk_usage(path)
    except OSError:
        return None
    return [usage.total, usage.free]


def _file_system(path: str) -> str | None:
    """Return the type of the file system that is mounted at a path; None if none is."""
    try:
        lines = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return None
    return next((fields[2] for fields in map(str.split, lines) if fields[1] == path), None)
