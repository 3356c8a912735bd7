"""The checkout of which jobs run the code: its folder, its revision, and the extras with the versions that it pins."""

import hashlib
import json
import re
import subprocess
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit

from raylens.cluster.jobs.package import Package, file_package
from raylens.errors import ConfigError

__all__ = ["Pinned", "checkout", "pinned", "revision"]

CONSTRAINTS = "constraints.txt"
WORKING_DIR = "${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}"
"""The folder of the working directory while Ray installs; pip expands the variable, but only in requirements files."""
NOT_FOR_JOBS = ("dev",)


def checkout(named: Path | None = None) -> Path:
    """Return the folder whose sources are built: ``named``, or that of this raylens' editable installation.

    Raises:
        ConfigError: the folder is not a checkout of raylens, or this raylens was not installed from one.
    """
    if named is None:
        named = _installed_from()
        if named is None:
            raise ConfigError(
                "this raylens was installed from a package, not from a checkout: there are no sources to build. Give "
                "--source FOLDER of a checkout, or --code image to run the raylens of the cluster's image"
            )
    folder = named.expanduser().resolve()
    if not (folder / "pyproject.toml").is_file():
        raise ConfigError(f"--source {named}: there is no pyproject.toml in it; name a checkout of raylens")
    return folder


def revision(folder: Path) -> str | None:
    """Return git's revision, with ``+dirty`` if files differ from it; None outside of a repository."""
    head = _git(folder, "rev-parse", "HEAD")
    if not head:
        return None
    return f"{head}+dirty" if _git(folder, "status", "--porcelain") else head


def _installed_from() -> Path | None:
    """Return the folder of an editable installation, from pip's record of its origin (PEP 610)."""
    try:
        text = distribution("raylens").read_text("direct_url.json")
    except PackageNotFoundError:
        return None
    origin = json.loads(text or "{}")
    url = urlsplit(origin.get("url", ""))
    editable = origin.get("dir_info", {}).get("editable", False)
    return Path(unquote(url.path)) if editable and url.scheme == "file" else None


def _git(folder: Path, *words: str) -> str:
    """Return git's output; an empty text without git or a repository."""
    try:
        run = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=False)  # noqa: S603, S607 (fixed words)
    except OSError:
        return ""
    return run.stdout.strip() if run.returncode == 0 else ""


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
