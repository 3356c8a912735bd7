"""The wheel of a checkout, named by its content: equal sources make one package, which is uploaded once."""

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
"""2 February 2020, the date of every file in a wheel, so that equal sources make equal wheels on every day."""
ENTRYPOINT = "raylens/workloads/job_entrypoint.py"
"""The program with which a job begins; a wheel must have it."""


@dataclass(frozen=True)
class Wheel:
    """A wheel's version, and the package in which it is uploaded."""

    version: str
    package: Package


def build_wheel(source: Path) -> Wheel:
    """Build the wheel of the sources in a folder, except for files that git ignores.

    The wheel is uploaded as a zip file, which Ray unpacks. Ray would install a file that ends in .whl with pip, with
    all dependencies on each node, and it would not replace an installed wheel of the same version.

    Raises:
        ClusterError: the wheel does not build, is not raylens, or holds Python that does not compile.
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
    """Check here that a wheel can run, so that a job does not fail on the cluster minutes later."""
    with zipfile.ZipFile(wheel) as files:
        names = files.namelist()
        if ENTRYPOINT not in names:
            raise ClusterError(f"the wheel of {source} has no {ENTRYPOINT}: it is not raylens, or an older version")
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
