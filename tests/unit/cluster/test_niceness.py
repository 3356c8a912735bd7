"""The share of the processors that Ray's workers get, by what the user's environment says."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from raylens.cluster.local.commands import environment
from raylens.cluster.niceness import NICENESS, WORKER_NICENESS, worker_niceness
from raylens.errors import ConfigError
from raylens.workloads.cli.app import app


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (NICENESS, WORKER_NICENESS):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "0"),
        ({NICENESS: ""}, "0"),
        ({NICENESS: "10"}, "10"),
        ({NICENESS: "19"}, "19"),
        ({WORKER_NICENESS: "15"}, "15"),
        ({NICENESS: "10", WORKER_NICENESS: "3"}, "3"),
    ],
)
def test_workers_have_a_fair_share_unless_the_user_says_otherwise(
    given: dict[str, str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert worker_niceness() == expected
    assert environment(tmp_path / "token")["RAY_worker_niceness"] == expected


@pytest.mark.parametrize("value", ["20", "-1", "low", "1.5", "²", " 5"])
def test_what_is_no_niceness_is_named(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NICENESS, value)
    with pytest.raises(ConfigError) as raised:
        worker_niceness()
    assert all(part in str(raised.value) for part in ("RAYLENS_NICENESS", repr(value), "from 0", "to 19"))


def test_a_command_refuses_it_before_ray_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NICENESS, "low")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("RAYLENS_CONTEXTS", str(tmp_path / "contexts.yaml"))
    result = CliRunner().invoke(app, ["cluster", "local", "--nodes", "1", "--port", "0"])
    assert isinstance(result.exception, ConfigError)
    assert "RAYLENS_NICENESS = 'low'" in str(result.exception)
