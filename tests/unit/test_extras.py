"""What needs an extra of raylens names it; `tests/integration/test_extras.py` tries an environment without any."""

import tomllib
from pathlib import Path

import pytest

from raylens.errors import MissingExtraError
from raylens.extras import EXTRAS, import_extra, require_extra

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def test_the_extras_are_those_of_the_project() -> None:
    declared = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(EXTRAS) == set(declared) - {"dev"}
    for extra in EXTRAS:
        require_extra(extra, "this test")


def test_a_missing_package_is_an_error_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRAS, "wandb", ("wandb", "a_package_that_is_not_there"))
    with pytest.raises(MissingExtraError, match=r"a_package_that_is_not_there.*raylens\[wandb\]"):
        require_extra("wandb", "this test")
    with pytest.raises(MissingExtraError, match=r"raylens\[wandb\]"):
        import_extra("wandb", "a_package_that_is_not_there", "this test")
