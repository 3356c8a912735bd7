"""Extras of raylens for a job: what pip installs beside the wheel, in the versions that the checkout pins."""

import hashlib
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

from raylens.cluster.jobs.package import Package, file_package
from raylens.errors import ConfigError

__all__ = ["Pinned", "pinned"]

CONSTRAINTS = "constraints.txt"
PLACE = "${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}"
"""Where Ray has unpacked the working directory while it installs; pip replaces it, in files of requirements alone."""
NOT_FOR_JOBS = ("dev",)


class Pinned:
    """Requirements, and the package with the versions that they and all that they bring are held to."""

    def __init__(self, requirements: tuple[str, ...], constraints: Package) -> None:
        self.requirements, self.constraints = requirements, constraints


def pinned(source: Path, extras: Iterable[str]) -> Pinned | None:
    """What the extras of a checkout need; None where none are asked for.

    Raises:
        ConfigError: there is no such extra, or the checkout pins no versions.
    """
    wanted = sorted(set(extras))
    if not wanted:
        return None
    known = _extras(source)
    for extra in wanted:
        if extra not in known:
            raise ConfigError(f"--extra {extra}: raylens has none of that name; extras: {', '.join(sorted(known))}")
    try:
        versions = (source / CONSTRAINTS).read_bytes()
    except OSError as error:
        raise ConfigError(f"--extra {wanted[0]}: cannot read {source / CONSTRAINTS}: {error.strerror}") from None
    # In the name: Ray tells environments apart by the lines of the requirements, not by the files that they name.
    name = f"constraints-{hashlib.sha256(versions).hexdigest()[:16]}.txt"
    lines = sorted({requirement for extra in wanted for requirement in known[extra]})
    return Pinned((f"-c {PLACE}/{name}", *lines), file_package({name: versions}))


def _extras(source: Path) -> dict[str, list[str]]:
    file = source / "pyproject.toml"
    try:
        tree = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read {file}: {error}") from None
    extras = tree.get("project", {}).get("optional-dependencies", {})
    return {
        name: [re.sub(r"\s+", " ", one) for one in lines] for name, lines in extras.items() if name not in NOT_FOR_JOBS
    }
