"""Four source roots, one namespace package: what must not be there, and what the wheel must hold."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
ROOTS = ("platform", "workloads", "serve", "cluster")


@pytest.mark.parametrize("root", ROOTS)
def test_no_root_is_a_package(root: str) -> None:
    """`platform/__init__.py` would shadow Python's own module; one below it would hide the other three roots."""
    assert (REPOSITORY / root / "raylens").is_dir()
    assert not (REPOSITORY / root / "__init__.py").exists()
    assert not (REPOSITORY / root / "raylens" / "__init__.py").exists()


@pytest.mark.parametrize("arguments", [["-c", "import platform; print(platform.python_version())"], ["-m", "platform"]])
def test_platform_is_the_standard_librarys(arguments: list[str]) -> None:
    """From the repository's root, where the folder of that name lies."""
    run = subprocess.run([sys.executable, *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert run.stdout.strip()


def test_a_root_on_the_path_does_not_hide_the_others() -> None:
    code = "import raylens.config, raylens.cluster, raylens.workloads, raylens.serve; print(len(raylens.__path__))"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY / "platform", capture_output=True, text=True, check=True
    )
    assert int(run.stdout) >= len(ROOTS)


def packages() -> list[Path]:
    """The packages right below ``raylens``."""
    return sorted(path.parent for root in ROOTS for path in (REPOSITORY / root / "raylens").glob("*/__init__.py"))


def test_every_package_is_typed() -> None:
    assert len(packages()) >= 10
    assert [str(package) for package in packages() if not (package / "py.typed").is_file()] == []


def test_no_name_is_taken_twice() -> None:
    """In one namespace the first root on the path would win in silence."""
    names = [
        path.name for root in ROOTS for path in (REPOSITORY / root / "raylens").iterdir() if path.name[0] not in "._"
    ]
    assert sorted(names) == sorted(set(names))


def test_the_wheel_holds_all_roots(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=REPOSITORY, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert {name.split("/")[0] for name in held} == {"raylens"}
    sources = {
        path.relative_to(REPOSITORY / root).as_posix()
        for root in ROOTS
        for path in (REPOSITORY / root).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.name != ".DS_Store"
    }
    assert held == sources
    assert "raylens/evaluate/report/templates/report.html.j2" in held
