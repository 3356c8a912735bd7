"""Extras of raylens for a job: what pip installs in addition to the wheel, in the versions that the checkout pins."""

import hashlib
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

from raylens.cluster.jobs.package import Package, file_package
from raylens.errors import ConfigError

__all__ = ["Pinned", "pinned"]

CONSTRAINTS = "constraints.txt"
WORKING_DIR = "${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}"
"""The folder of the working directory while Ray installs; pip expands the variable, but only in requirements files."""
NOT_FOR_JOBS = ("dev",)


class Pinned:
    """Requirements of pip, and the package with the versions to which they and their dependencies are constrained."""

    def __init__(self, requirements: tuple[str, ...], constraints: Package) -> None:
        self.requirements, self.constraints = requirements, constraints


def pinned(source: Path, extras: Iterable[str]) -> Pinned | None:
    """Return the pinned requirements of a checkout's extras; None if there are no extras.

    Raises:
        ConfigError: the checkout has no such extra, or pins no versions.
    """
    wanted = sorted(set(extras))
    if not wanted:
        return None
    known = _extras(source)
    for extra in wanted:
        if extra not in known:
            raise ConfigError(f"--extra {extra}: there is no such extra; extras: {', '.join(sorted(known))}")
    try:
        versions = (source / CONSTRAINTS).read_bytes()
    except OSError as error:
        raise ConfigError(f"--extra {wanted[0]}: cannot read {source / CONSTRAINTS}: {error.strerror}") from None
    # The hash is in the name because Ray compares the lines of requirements, not the files that they name.
    name = f"constraints-{hashlib.sha256(versions).hexdigest()[:16]}.txt"
    lines = sorted({requirement for extra in wanted for requirement in known[extra]})
    return Pinned((f"-c {WORKING_DIR}/{name}", *lines), file_package({name: versions}))


def _extras(source: Path) -> dict[str, list[str]]:
    file = source / "pyproject.toml"
    try:
        tree = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read {file}: {error}") from None
    extras = tree.get("project", {}).get("optional-dependencies", {})
    return {
        name: [re.sub(r"\s+", " ", line) for line in lines]
        for name, lines in extras.items()
        if name not in NOT_FOR_JOBS
    }
