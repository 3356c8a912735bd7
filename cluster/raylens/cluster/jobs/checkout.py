"""The checkout of which jobs run the code: its folder, its revision, and the extras with the versions that it pins."""

import json
import subprocess
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit

from raylens.errors import ConfigError

__all__ = ["checkout", "revision"]


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
