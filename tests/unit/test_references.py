"""Names of modules, classes and functions in docstrings, comments and pages exist: a rename leaves none behind."""

import functools
import importlib
import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
FOLDERS = ("platform", "workloads", "serve", "cluster", "tests", "benchmarks", "docs", "docker")
TEXTS = [path for name in FOLDERS for path in sorted((REPOSITORY / name).rglob("*")) if path.suffix in (".py", ".md")]
TEXTS += sorted(REPOSITORY.glob("*.md"))
REFERENCE = re.compile(r"(?<![\w./\"'-])raylens(?:\.[A-Za-z_]\w*)+(?![\w/\"'-])")
NO_MODULES = re.compile(r"raylens\.(io|goal|whl|pth|retry_of|submission|user)\b")
"""What labels, tags and files have behind ``raylens.``."""


@functools.cache
def resolves(reference: str) -> bool:
    """Whether modules and their attributes, fields of classes too, lead to the name."""
    target, path = importlib.import_module("raylens"), "raylens"
    for part in reference.split(".")[1:]:
        path = f"{path}.{part}"
        if not hasattr(target, part) and part in getattr(target, "__annotations__", {}):
            return True
        try:
            target = getattr(target, part) if hasattr(target, part) else importlib.import_module(path)
        except ModuleNotFoundError:
            return False
    return True


def test_every_dotted_name_resolves() -> None:
    broken = [
        (str(path.relative_to(REPOSITORY)), name)
        for path in TEXTS
        for name in sorted(set(REFERENCE.findall(path.read_text(encoding="utf-8"))))
        if not NO_MODULES.match(name) and not resolves(name)
    ]
    assert broken == []
