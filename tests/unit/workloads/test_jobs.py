"""A command line for a cluster, checked here, and made to work there."""

import os
import re
from pathlib import Path

import pytest
import typer
import yaml
from typer.core import TyperGroup
from typer.testing import CliRunner

from raylens.cluster.driver_resources import Resources
from raylens.cluster.jobs.api import Job
from raylens.errors import ConfigError
from raylens.workloads.cli.app import app
from raylens.workloads.submit.command import FILES, JobCommand, job_command
from raylens.workloads.submit.jobs import list_page, show_page
from raylens.workloads.submit.options import pairs, resources_of, secrets_of

PLACES = ["--set", "storage=s3://b/runs", "--set", "registry=s3://b/models", "--set", "data.train=s3://b/data"]


def _job_command(words: list[str], variables: dict[str, str]) -> JobCommand:
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    return job_command(root, words, variables)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", "ray://not-for-jobs:10001")
    monkeypatch.setenv("RAYLENS_REGISTRY", "not/for/jobs")
    return tmp_path


def test_a_command_travels_as_it_is() -> None:
    found = _job_command(["train", "digits", *PLACES], {})
    assert found.words == ("train", "digits", *PLACES)
    assert found.files == {}
    assert found.name == "train-digits"
    same = _job_command(["train", "digits", *PLACES, "--set", "seed=0"], {})
    other = _job_command(["train", "digits", *PLACES, "--set", "seed=1"], {})
    assert found.config_hash == same.config_hash != other.config_hash


def test_a_file_travels_complete_and_changed(here: Path) -> None:
    (here / "sub").mkdir()
    (here / "sub" / "mine.yaml").write_text("recipe: digits\nname: mine\nlength: {epochs: 3}\n")
    found = _job_command(["train", "sub/mine.yaml", *PLACES, "--set", "length.epochs=4"], {})
    assert found.words[:2] == ("train", f"{FILES}mine.yaml")
    tree = yaml.safe_load(found.files["mine.yaml"])
    assert (tree["name"], tree["length"]["epochs"], tree["storage"]) == ("mine", 4, "s3://b/runs")
    assert "recipe" not in tree
    assert found.name == "train-mine"


def test_options_name_files_too(here: Path) -> None:
    (here / "serve.yaml").write_text("models: [{model: pets}]\nregistry: s3://b/models\n")
    found = _job_command(["serve", "--config=serve.yaml", "--set", "port=8001"], {})
    assert found.words == ("serve", f"--config={FILES}serve.yaml", "--set", "port=8001")
    assert found.files == {"serve.yaml": (here / "serve.yaml").read_bytes()}


def test_two_files_of_one_name_stay_two(here: Path) -> None:
    for name in ("a", "b"):
        (here / name).mkdir()
        (here / name / "x.yaml").write_text(name)
    found = _job_command(["runs", "compare", "a/x.yaml", "b/x.yaml"], {})
    assert found.words == ("runs", "compare", f"{FILES}x.yaml", f"{FILES}other-x.yaml")
    assert found.files == {"x.yaml": b"a", "other-x.yaml": b"b"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no command: write it after --"),
        (["trian"], "raylens trian: No such command 'trian'. Did you mean 'train'?"),
        (["models"], "what of it? --help lists its commands"),
        (["--"], "raylens --: Missing command."),
        (["train"], "Missing argument"),
        (["train", "digits", "--sett", "a=1"], "No such option: --sett"),
        (["train", "nothing"], "unknown recipe 'nothing'; recipes: digits, "),
        (["train", "digits", *PLACES, "--set", "seed=x"], "seed = 'x'"),
        (["train", "digits", *PLACES, "--address", "auto"], "--address says which cluster"),
        (["train", "digits", *PLACES, "--num-cpus", "4"], "--num-cpus says which cluster"),
        (["train", "digits", *PLACES, "--set", "storage=runs"], "storage = 'runs' is a folder beside this command"),
        (["train", "digits", *PLACES, "--set", "data.train=~/x"], "--set data.train=s3://bucket/prefix"),
        (["sweep", "digits"], "storage = 'quickstart/sweeps' is a folder beside this command"),
        (["quickstart"], "--storage = 'quickstart' is a folder beside this command"),
        (["serve", "pets"], "registry = 'registry' is a folder beside this command"),
        (["jobs", "list"], "`raylens jobs` is about clusters"),
        (["cluster", "local"], "`raylens cluster` is about clusters"),
    ],
)
def test_what_cannot_run_is_said_as_the_command_would(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        _job_command(words, {})
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_job_sees_its_own_variables_not_this_machines() -> None:
    assert _job_command(["serve", "pets"], {"RAYLENS_REGISTRY": "s3://b/models"}).words == ("serve", "pets")
    with pytest.raises(ConfigError, match=r"^--address says"):
        _job_command(["serve", "pets"], {"RAYLENS_REGISTRY": "s3://b/models", "RAY_ADDRESS": "auto"})
    assert os.environ["RAYLENS_REGISTRY"] == "not/for/jobs"


def test_files_that_stay_behind_are_named(here: Path) -> None:
    (here / "shards").mkdir()
    (here / "shards" / "a.tar").write_text("")
    with pytest.raises(ConfigError, match=r"shards/a\.tar is on this machine, where a job does not see it"):
        _job_command(["data", "verify", "shards/a.tar"], {})
    assert _job_command(["data", "verify", "s3://b/shards"], {}).files == {}
    assert _job_command(["data", "verify", str(here / "shards")], {}).files == {}


def test_help_is_given_and_nothing_is_run(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        _job_command(["train", "--help"], {})
    assert "Train an encoder and register it" in capsys.readouterr().out


def test_options_of_jobs() -> None:
    assert pairs(["A=b=c", "D="], "--env") == {"A": "b=c", "D": ""}
    for wrong, said in ((["A"], "--env A: write it as NAME=VALUE"), (["A=1", "A=2"], "--env A is given twice")):
        with pytest.raises(ConfigError, match=said):
            pairs(wrong, "--env")
    assert secrets_of(["A=env:B", "C"], ["A", "D"]) == ("A=env:B", "D", "C")
    with pytest.raises(ConfigError, match=r"^--secret: secret A: after '='"):
        secrets_of(["A=hidden-1"], [])
    before = Resources(cpus=2, custom={"big": 1})
    assert resources_of(None, 1, "2G", None, before) == Resources(cpus=2, gpus=1, memory=2 << 30, custom={"big": 1})
    assert resources_of(None, None, "7", ["x=2"], before) == Resources(cpus=2, memory=7, custom={"x": 2})
    with pytest.raises(ConfigError, match="--memory 2x"):
        resources_of(None, None, "2x", None, before)


def test_what_is_shown_of_jobs() -> None:
    job = Job(
        submission_id="mine",
        status="FAILED",
        start_time=1_000_000,
        end_time=1_090_000,
        driver_exit_code=2,
        message="failed:\n[bold]why[/bold]",
        metadata={"raylens.command": "raylens train x", "raylens.submission": "{}", "raylens.user": "me"},
    )
    (table,) = list_page([job], as_json=False)
    assert not isinstance(table, str)
    assert [str(next(iter(column.cells))) for column in table.columns][:2] == ["mine", "FAILED"]
    (shown,) = show_page(job, as_json=False)
    assert not isinstance(shown, str)
    rows = dict(zip(*([str(cell) for cell in column.cells] for column in shown.columns), strict=True))
    assert rows["status"] == "FAILED, exit status 2"
    assert rows["took"] == "90 s"
    assert rows["message"].endswith("[bold]why[/bold]")
    assert "raylens.submission" not in rows


def test_every_command_explains_itself() -> None:
    for words in (["jobs", "submit"], ["contexts", "add"], ["cluster", "local"], ["serve", "deploy"]):
        told = CliRunner().invoke(app, [*words, "--help"]).output
        assert re.search(r"Examples?:", told), words
