"""An environment that has what raylens declares without extras, and no more, made of the installed packages."""

import importlib.metadata as metadata
import re
import sysconfig
import tomllib
import venv
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement

REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def distributions(requirements: Iterable[str]) -> dict[str, set[str]]:
    """Names of the installed distributions that requirements bring, with the extras that are asked of each."""
    names: dict[str, set[str]] = {}
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        extras = names.get(name, set()) | requirement.extras
        if names.get(name) == extras:
            continue
        names[name] = extras
        for text in metadata.distribution(name).requires or ():
            brought = Requirement(text)
            if brought.marker is None or any(brought.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                waiting.append(brought)
    return names


def bare_python(folder: Path) -> Path:
    """Make the environment in a folder and return its interpreter.

    It has raylens' sources, and links to those distributions that the declared dependencies bring by the metadata of
    each: a dependency that is used and not declared is missing.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    scheme = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", "venv", vars=scheme))
    for name in distributions(PROJECT["dependencies"]):
        distribution = metadata.distribution(name)
        tops = {file.parts[0] for file in distribution.files or () if file.parts[0] != ".."}
        for top in tops - {"__pycache__"}:
            link = packages / top
            if not link.exists():
                link.symlink_to(Path(str(distribution.locate_file(top))))
    roots = (REPOSITORY / root for root in ("platform", "workloads", "serve", "cluster"))
    (packages / "raylens.pth").write_text("".join(f"{root}\n" for root in roots))
    return folder / "bin" / "python"
