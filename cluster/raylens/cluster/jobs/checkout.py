"""The checkout that this raylens runs from: what travels to a cluster, and what is written down about it."""

import json
import subprocess
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit

from raylens.errors import ConfigError

__all__ = ["checkout", "revision"]


def checkout(named: Path | None = None) -> Path:
    """The folder whose sources make the wheel: ``named``, or the one that this raylens was installed from to edit.

    Raises:
        ConfigError: it is no checkout of raylens, or this raylens was not installed from one.
    """
    if named is None:
        named = _installed_from()
        if named is None:
            raise ConfigError(
                "this raylens was installed from a package, not from a checkout, so there are no sources to ship: "
                "--source FOLDER of a checkout, or --code image to run the raylens of the cluster's image"
            )
    folder = named.expanduser().resolve()
    if not (folder / "pyproject.toml").is_file():
        raise ConfigError(f"--source {named}: there is no pyproject.toml in it; name a checkout of raylens")
    return folder


def revision(folder: Path) -> str | None:
    """Git's name of what is checked out, ``+dirty`` where files differ from it; None where git knows nothing."""
    head = _git(folder, "rev-parse", "HEAD")
    if not head:
        return None
    return f"{head}+dirty" if _git(folder, "status", "--porcelain") else head


def _installed_from() -> Path | None:
    """PEP 610: what pip wrote down about where an installation came from."""
    try:
        text = distribution("raylens").read_text("direct_url.json")
    except PackageNotFoundError:
        return None
    origin = json.loads(text or "{}")
    url = urlsplit(origin.get("url", ""))
    editable = origin.get("dir_info", {}).get("editable", False)
    return Path(unquote(url.path)) if editable and url.scheme == "file" else None


def _git(folder: Path, *words: str) -> str:
    """Git's answer; empty where there is no git, or no repository."""
    try:
        run = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=False)  # noqa: S603, S607 (fixed words)
    except OSError:
        return ""
    return run.stdout.strip() if run.returncode == 0 else ""
