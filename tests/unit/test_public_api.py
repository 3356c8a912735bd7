"""Each module says what it offers, and offers what it says."""

import ast
import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).parents[2]
ROOTS = [REPOSITORY / name / "raylens" for name in ("platform", "workloads", "serve", "cluster")]
MODULES = {
    ".".join(path.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for root in ROOTS
    for path in sorted(root.rglob("*.py"))
}
PACKAGES = [name for name, path in MODULES.items() if path.name == "__init__.py"]


def exported(path: Path) -> list[str] | None:
    """The names in ``__all__``, read without importing; None where there is none."""
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "__all__" for target in statement.targets
        ):
            value = ast.literal_eval(statement.value)
            assert isinstance(value, list)
            return value
    return None


def kind(name: str) -> int:
    """Constants, then classes, then functions, as the linter sorts them."""
    return 0 if re.fullmatch(r"[A-Z0-9_]+", name) else 1 if name[0].isupper() else 2


@pytest.mark.parametrize("module", MODULES)
def test_all_is_there_sorted_and_without_privates(module: str) -> None:
    names = exported(MODULES[module])
    if names is None:
        # A page that only describes the packages below it has nothing to offer.
        assert [type(node) for node in ast.parse(MODULES[module].read_text(encoding="utf-8")).body] == [ast.Expr]
        return
    assert names == sorted(set(names), key=lambda name: (kind(name), name))
    assert [name for name in names if name.startswith("_")] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_every_exported_name_resolves(package: str) -> None:
    module = importlib.import_module(package)
    for name in exported(MODULES[package]) or []:
        assert not isinstance(getattr(module, name), ModuleType)


@pytest.mark.parametrize("package", [name for name in PACKAGES if "lazy_face(" in MODULES[name].read_text("utf-8")])
def test_no_module_hides_a_name_that_is_imported_on_demand(package: str) -> None:
    """Python sets an imported module on its package, in place of what the package would look up by that name."""
    later = {
        name.value
        for node in ast.walk(ast.parse(MODULES[package].read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "lazy_face"
        for name in getattr(node.args[1], "keys", ())
        if isinstance(name, ast.Constant)
    }
    assert [name for name in exported(MODULES[package]) or [] if name in later and f"{package}.{name}" in MODULES] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_export_what_they_import(package: str) -> None:
    """What a package takes from its own modules is what it offers: nothing is left half public."""
    tree = ast.parse(MODULES[package].read_text(encoding="utf-8"))
    taken = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{package}.")
        for alias in node.names
    }
    own = {
        target.id
        for node in tree.body
        for target in (node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)])
        if isinstance(target, ast.Name)
    }
    names = set(exported(MODULES[package]) or [])
    assert taken <= names
    assert names - taken <= own


def test_the_public_names_are_the_frozen_ones() -> None:
    """A name that is added, renamed or removed changes the API, and `public_names.txt` in the same commit."""
    names = sorted(f"{package}.{name}" for package in PACKAGES for name in exported(MODULES[package]) or [])
    assert names == (REPOSITORY / "tests/unit/public_names.txt").read_text(encoding="utf-8").split()


def test_packages_import_each_other_by_their_faces() -> None:
    """What another package uses is exported by the package or the sub-package that has it.

    A function that has the name of its module is imported from the module: Python sets the module on the package.
    """
    around = []
    for module, path in MODULES.items():
        package = ".".join(module.split(".")[:2])
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("raylens."):
                continue
            source = node.module or ""
            top = ".".join(source.split(".")[:2])
            if top == package or top not in PACKAGES or source in PACKAGES:
                continue
            names = [alias.name for alias in node.names]
            around += [f"{module}: {source}.{name}" for name in names if source.rpartition(".")[2] != name]
    assert around == []
