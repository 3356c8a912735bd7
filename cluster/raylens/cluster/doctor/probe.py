"""What runs on every node: an actor that looks around. It is sent by value, since nodes need not have raylens.

So the actor uses nothing that is not sent with it but the standard library and Ray, and answers with plain values.
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
"""So long may importing torch take on a cold disk."""
TOOL_SECONDS = 20.0
SMI = ("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader,nounits")


def versions() -> dict[str, str | None]:
    """Of Python and of packages; None where a package is not there."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


class Probe:
    """Takes no CPU, and no memory worth speaking of: torch is only imported by programs that it starts."""

    def facts(self, torch_program: str) -> dict[str, Any]:
        """Everything that can be seen without touching the network."""
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
        """The node's clock, in seconds since 1970."""
        return time.time()

    def storage(self, uri: str, folder: str, name: str, megabytes: int, writable: bool) -> dict[str, Any]:
        """Write to a store and read from it; see `raylens.cluster.doctor.store_probe`."""
        try:
            from raylens.cluster.doctor.store_probe import read_only, try_store
        except ImportError as error:
            return {"missing": str(error)}
        return try_store(uri, folder, name, megabytes) if writable else read_only(uri, megabytes)

    def sees(self, uri: str, paths: list[str]) -> dict[str, Any]:
        """Which of the objects that others wrote this node sees not."""
        from raylens.cluster.doctor.store_probe import unseen

        return unseen(uri, paths)

    def clean(self, uri: str, folder: str) -> dict[str, Any]:
        """Delete what the nodes wrote."""
        from raylens.cluster.doctor.store_probe import clean

        return clean(uri, folder)

    def free_port(self) -> int:
        """Where the processes of an all-reduce may meet."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return int(probe.getsockname()[1])

    def run(self, program: str, arguments: list[list[str]], seconds: float) -> list[dict[str, Any]]:
        """Run a program several times at once, each with its own arguments; the JSON that each wrote last."""
        begun = [
            subprocess.Popen(  # noqa: S603 (a program of raylens' own)
                (sys.executable, "-c", program, *one),
                env=_environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for one in arguments
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
    """Libraries write warnings of their own around it."""
    for line in reversed(text.splitlines()):
        with contextlib.suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict):
                return found
    return {"error": text.strip()[-300:] or "it said nothing"}


def _smi() -> dict[str, Any]:
    """GPUs as their driver lists them; no error where a machine has neither."""
    if shutil.which(SMI[0]) is None:
        return {"gpus": []}
    try:
        done = subprocess.run(  # noqa: S603 (where the path leads: the driver's own tool)
            SMI, capture_output=True, text=True, timeout=TOOL_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"gpus": [], "error": str(error)}
    if done.returncode:
        return {"gpus": [], "error": (done.stdout + done.stderr).strip()[-300:]}
    rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if line.strip()]
    return {"gpus": [row[0] for row in rows], "driver": rows[0][1] if rows else None}


def _environment() -> dict[str, str]:
    """This process's, but with the GPUs that the node has: Ray hides them from whoever reserves none."""
    found = dict(os.environ)
    given = _raylet_variable("CUDA_VISIBLE_DEVICES")
    found.pop("CUDA_VISIBLE_DEVICES", None)
    return found if given is None else found | {"CUDA_VISIBLE_DEVICES": given}


def _raylet_variable(name: str) -> str | None:
    """Of the process that started this one."""
    try:
        entries = Path(f"/proc/{os.getppid()}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    prefix = f"{name}=".encode()
    return next((entry[len(prefix) :].decode() for entry in entries if entry.startswith(prefix)), None)


def _space(path: str) -> list[int] | None:
    """Bytes in all and free; None where there is no such folder."""
    try:
        usage = shutil.disk_usage(path)
    except OSError:
        return None
    return [usage.total, usage.free]


def _file_system(path: str) -> str | None:
    """The kind of what is mounted there."""
    try:
        lines = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return None
    return next((fields[2] for fields in map(str.split, lines) if fields[1] == path), None)
