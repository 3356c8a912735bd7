"""The wheel that travels: named by its content, whole, and first on the path."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from raylens.cluster.jobs.checkout import checkout, pinned, revision
from raylens.cluster.jobs.package import Package, cached, file_package, keep
from raylens.cluster.jobs.wheel import build_wheel
from raylens.errors import ClusterError, ConfigError

REPOSITORY = Path(__file__).parents[3]
PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "raylens"
version = "9.9"
[tool.hatch.build.targets.wheel]
only-include = ["one/raylens"]
sources = ["one"]
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A very small raylens."""
    package = tmp_path / "source" / "one" / "raylens" / "workloads"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "job_entrypoint.py").write_text("print('here')\n")
    (tmp_path / "source" / "pyproject.toml").write_text(PROJECT)
    return tmp_path / "source"


def test_equal_sources_make_one_package(source: Path, tmp_path: Path) -> None:
    first = build_wheel(source)
    other = Path(shutil.copytree(source, tmp_path / "elsewhere"))
    for file in other.rglob("*.py"):
        os.utime(file, (1, 1))
        file.chmod(0o600)
    assert build_wheel(other) == first
    assert first.package.name == f"raylens-9.9-{first.package.digest[:16]}.zip"
    (other / "one" / "raylens" / "workloads" / "job_entrypoint.py").write_text("print('there')\n")
    assert build_wheel(other).package.uri != first.package.uri


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("pyproject.toml", "[project\n", "does not build: "),
        ("pyproject.toml", PROJECT.replace("[project]", '[project]\nreadme = "none.md"'), "does not build: "),
        ("pyproject.toml", PROJECT.replace("raylens", "other", 1), "not one of raylens"),
        ("one/raylens/workloads/broken.py", "x = 1\ndef f(:\n", r"is broken: raylens/workloads/broken.py, line 2: "),
        ("one/raylens/workloads/broken.py", "x = '\0'\n", "is broken: raylens/workloads/broken.py"),
    ],
)
def test_a_broken_wheel_is_said_to_be_in_one_line(source: Path, file: str, text: str, said: str) -> None:
    (source / file).write_text(text)
    with pytest.raises(ClusterError, match=said) as error:
        build_wheel(source)
    assert "\n" not in str(error.value)


def test_an_older_raylens_is_refused(source: Path) -> None:
    (source / "one" / "raylens" / "workloads" / "job_entrypoint.py").unlink()
    with pytest.raises(ClusterError, match=r"has no raylens/workloads/job_entrypoint\.py"):
        build_wheel(source)


def test_the_wheel_of_this_checkout_wins_over_its_installation(tmp_path: Path) -> None:
    """Every package of raylens comes from the wheel, though an editable installation puts four roots on the path."""
    package = build_wheel(checkout(REPOSITORY)).package
    place = tmp_path / package.name.removesuffix(".zip")
    (tmp_path / "wheel.zip").write_bytes(package.data)
    zipfile.ZipFile(tmp_path / "wheel.zip").extractall(place)
    code = """
import importlib, json, pathlib, raylens
from importlib.metadata import distribution
names = {file.parent.name for root in raylens.__path__ for file in pathlib.Path(root).glob("*/__init__.py")}
homes = {name: importlib.util.find_spec(f"raylens.{name}").origin for name in names}
print(json.dumps([homes, str(distribution("raylens").locate_file(""))]))
"""
    environment = {**os.environ, "PYTHONPATH": str(place)}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    homes, installed = json.loads(run.stdout)
    assert len(homes) >= 10
    assert [name for name, origin in homes.items() if not origin.startswith(f"{place}/")] == []
    assert installed.startswith(str(place))


def test_a_job_refuses_code_that_is_not_what_came(tmp_path: Path) -> None:
    environment = {**os.environ, "RAYLENS_WHEEL": "raylens-0.1.0-0123456789abcdef"}
    command = [sys.executable, "-m", "raylens.workloads.job_entrypoint", "recipes"]
    run = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.startswith("error: the job has the wheel raylens-0.1.0-0123456789abcdef, but ")
    assert len(run.stderr.strip().splitlines()) == 1


def test_the_checkout_is_the_one_that_this_raylens_was_installed_from(tmp_path: Path) -> None:
    assert checkout() == REPOSITORY
    with pytest.raises(ConfigError, match=r"there is no pyproject\.toml in it"):
        checkout(tmp_path)


def test_an_installed_package_has_no_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "raylens-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: raylens\nVersion: 0.1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for origin in (None, '{"url": "https://example.org/raylens.whl", "archive_info": {}}'):
        if origin:
            (info / "direct_url.json").write_text(origin)
        with pytest.raises(ConfigError, match="--code image"):
            checkout()


def test_a_revision_says_when_files_differ_from_it(tmp_path: Path) -> None:
    assert revision(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    (tmp_path / "a").write_text("1")
    for words in (["init", "-q"], ["add", "a"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    head = revision(tmp_path)
    assert head is not None
    assert len(head) == 40
    (tmp_path / "a").write_text("2")
    assert revision(tmp_path) == f"{head}+dirty"


def test_files_make_one_package_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = file_package({"a": b"1", "b": b"2"}), file_package({"b": b"2", "a": b"1"})
    assert one == two
    assert one.name != file_package({"a": b"1", "b": b"3"}).name
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cached(one.name) is None
    keep(one)
    assert cached(one.name) == one
    assert isinstance(one, Package)


def test_extras_are_pinned_as_the_checkout_pins_them() -> None:
    assert pinned(REPOSITORY, []) is None
    found = pinned(REPOSITORY, ["wandb", "lion"])
    assert found is not None
    constraints, *requirements = found.requirements
    assert [line.partition(">")[0] for line in requirements] == ["pytorch-optimizer", "wandb"]
    assert constraints.startswith("-c ${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}/constraints-")
    with pytest.raises(ConfigError, match=r"--extra dev: .*extras: lion, mlflow, train, wandb"):
        pinned(REPOSITORY, ["dev"])
