"""The wheel of a checkout, named by its content: equal sources make one package, which a cluster gets once."""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from raylens.cluster.jobs.package import Package
from raylens.errors import ClusterError

__all__ = ["Wheel", "build_wheel"]

EPOCH = "1580601600"
"""2 February 2020: the date of every file in it, so that the day of a build does not make another wheel."""
NEEDED = "raylens/workloads/job_entrypoint.py"
"""Where a job begins."""


@dataclass(frozen=True)
class Wheel:
    """A wheel, as it travels."""

    version: str
    package: Package


def build_wheel(source: Path) -> Wheel:
    """The wheel of the sources in a folder, those that git ignores left out.

    It travels as a zip file, which it is, and which Ray unpacks. What ends in .whl Ray would install by pip, with all
    dependencies, torch among them, on each node; and it would take for known whatever has a version that is known.

    Raises:
        ClusterError: it does not build, is not raylens, or holds Python that does not compile.
    """
    with tempfile.TemporaryDirectory(prefix="raylens-wheel-") as folder:
        _run_builder(source, folder)
        wheels = sorted(Path(folder).glob("*.whl"))
        if len(wheels) != 1 or not wheels[0].name.startswith("raylens-"):
            raise ClusterError(f"the wheel of {source} is {[wheel.name for wheel in wheels]}, not one of raylens")
        _check(source, wheels[0])
        version = wheels[0].name.split("-")[1]
        data = wheels[0].read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    return Wheel(version, Package(f"raylens-{version}-{digest[:16]}.zip", digest, data))


def _run_builder(source: Path, folder: str) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH, "NO_COLOR": "1"}
    run = subprocess.run(  # noqa: S603 (our own words)
        command, cwd=source, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if run.returncode:
        said = [line.strip() for line in run.stdout.splitlines() if line.strip()]
        raise ClusterError(f"the wheel of {source} does not build: {said[-1] if said else f'status {run.returncode}'}")


def _check(source: Path, wheel: Path) -> None:
    """A wheel that cannot run is said to be broken here, not by a cluster, minutes later."""
    with zipfile.ZipFile(wheel) as files:
        names = files.namelist()
        if NEEDED not in names:
            raise ClusterError(f"the wheel of {source} has no {NEEDED}: it is not raylens, or an older one")
        for name in names:
            if name.endswith(".py"):
                _compile(source, name, files.read(name))


def _compile(source: Path, name: str, code: bytes) -> None:
    try:
        compile(code, name, "exec", dont_inherit=True)
    except SyntaxError as error:
        raise ClusterError(f"the wheel of {source} is broken: {name}, line {error.lineno}: {error.msg}") from None
    except ValueError as error:
        raise ClusterError(f"the wheel of {source} is broken: {name}: {error}") from None
