"""Where bundles come from: written, read again, of any version, and shown to people."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from raylens.data.pack import pack
from raylens.errors import BundleError
from raylens.evaluate import ClassList
from raylens.registry import Bundle, Interpolation, Lineage, Registry, Selection
from raylens.storage import open_store
from raylens.workloads.cli.models import app
from raylens.workloads.evaluation import evaluate_model
from tests.conftest import samples
from tests.unit.registry.test_registry import bundle

DIGESTS = ("0123456789abcdef" * 4, "fedcba9876543210" * 4)
TRAINED: dict[str, Any] = {
    "run": "file:///runs/digits",
    "step": 0,
    "objective": "softmax",
    "weights": "average",
    "samples_seen": 12_800,
    "global_batch": 128,
    "manifests": list(DIGESTS),
}
SELECTED: dict[str, Any] = {
    "sweep": "file:///sweeps/rates",
    "trial": "t003",
    "values": {"optim.peak_lr": 1e-3, "optim.schedule": {"kind": "cosine"}},
    "metric": "zero_shot_frank",
    "goal": "max",
    "value": 0.75,
    "configurations": 24,
}
IMPORTED: dict[str, Any] = {"imported_from": "ViT-B-32.pt", "format": "openai", "notes": ["positions interpolated"]}
BETWEEN: dict[str, Any] = {"base": DIGESTS[0], "tuned": DIGESTS[1], "alpha": 0.25}


@pytest.mark.parametrize(
    "tree",
    [{}, TRAINED, {**TRAINED, "selection": SELECTED}, IMPORTED, {"objective": "sigmoid", "interpolated": BETWEEN}],
)
def test_it_is_read_as_it_was_written_with_what_is_known_alone(tree: dict[str, Any], tmp_path: Path) -> None:
    lineage = Lineage.model_validate(tree)
    registry = Registry(str(tmp_path))
    version = registry.publish("m", bundle(**tree))
    store = registry.bundle_store(version)
    assert json.loads(store.read("bundle.json"))["lineage"] == lineage.tree() == tree
    assert Bundle.load(store).lineage == registry.resolve("m").lineage == version.lineage == lineage
    assert lineage.others == {}


def test_the_fields_are_typed() -> None:
    lineage = Lineage.model_validate({**TRAINED, "selection": SELECTED, **IMPORTED, "interpolated": BETWEEN})
    assert lineage.selection == Selection(**SELECTED)
    assert lineage.interpolated == Interpolation(**BETWEEN)
    assert (lineage.manifests, lineage.notes) == (DIGESTS, ("positions interpolated",))


def older(tmp_path: Path, lineage: object) -> Registry:
    """A registry whose one version was written by another raylens."""
    registry = Registry(str(tmp_path))
    store, model = registry.bundle_store(registry.publish("m", bundle())), registry.store / "m"
    for folder, path in ((store, "bundle.json"), (model, "versions/000001.json")):
        folder.write(path, json.dumps({**json.loads(folder.read(path)), "lineage": lineage}).encode())
    return registry


@pytest.mark.parametrize(
    ("written", "read", "others"),
    [
        ({"manifest": DIGESTS[0], "step": 3}, Lineage(manifests=DIGESTS[:1], step=3), {}),
        ({"manifests": list(DIGESTS)}, Lineage(manifests=DIGESTS), {}),
        ({"run": "file:///r"}, Lineage(run="file:///r"), {}),
        ({"trial": "t003", "validation_loss": 1.5, "step": 3}, None, {"trial": "t003", "validation_loss": 1.5}),
        ({"manifest": "x", "manifests": ["y"]}, None, {"manifest": "x"}),
    ],
)
def test_older_bundles_are_read(written: dict[str, Any], read: Lineage | None, others: object, tmp_path: Path) -> None:
    registry = older(tmp_path, written)
    version, encoder = registry.load("m")
    assert encoder.bundle.lineage == version.lineage
    assert read is None or version.lineage == read
    assert version.lineage.others == others
    again = Registry(str(tmp_path / "again"))
    kept = again.bundle_store(again.publish("m", encoder.bundle))
    assert json.loads(kept.read("bundle.json"))["lineage"].items() >= dict(others).items()


@pytest.mark.parametrize(
    ("lineage", "words"),
    [
        ({"step": "seven"}, "step = 'seven'"),
        ({"manifest": 7}, "manifests"),
        ({"weights": "best"}, "weights = 'best'"),
        ({"selection": {**SELECTED, "goal": "up"}}, "goal = 'up'"),
        ({"interpolated": {"base": "a"}}, "tuned is missing"),
        ([], "lineage"),
    ],
)
def test_what_is_of_another_type_is_refused_by_name(lineage: object, words: str, tmp_path: Path) -> None:
    registry = older(tmp_path, lineage)
    for read, file in (
        (lambda: registry.resolve("m"), "versions/000001.json"),
        (lambda: Bundle.load(registry.store / "m" / "bundles" / bundle().digest()[:16]), "bundle.json"),
    ):
        with pytest.raises(BundleError) as caught:
            read()
        assert file in str(caught.value)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        (TRAINED, "0123456789ab, fedcba987654"),
        ({"manifest": DIGESTS[1]}, "fedcba987654"),
        ({"data": ["s3://a/b", "c"], "manifests": list(DIGESTS)}, "s3://a/b (0123456789ab), c (fedcba987654)"),
        ({"interpolated": BETWEEN}, "that of 0123456789ab and fedcba987654"),
        (IMPORTED, "unknown; imported from ViT-B-32.pt"),
        ({}, "unknown"),
    ],
)
def test_the_report_of_an_evaluation_names_the_training_data(tree: dict[str, Any], words: str, tmp_path: Path) -> None:
    data = open_store(tmp_path / "data")
    pack(samples(6), data, per_shard=6)
    ClassList("thirds", ("first", "second", "third"), ("a {}.",)).write(data)
    Registry(str(tmp_path / "registry")).publish("m", bundle(**{key: tree[key] for key in tree if key != "run"}))
    evaluate_model(str(tmp_path / "registry"), "m", data, open_store(tmp_path / "out"))
    page = open_store(tmp_path / "out").read_text("report.html")
    assert re.search(rf"Training data</th>\s*<td>{re.escape(words)}</td>", page)


def test_a_model_is_shown_with_everything_that_is_known_of_it(tmp_path: Path) -> None:
    registry = Registry(str(tmp_path))
    version = registry.publish("m", bundle(**TRAINED, selection=SELECTED, others_wrote=7))
    registry.promote("m", "prod", 1)
    wide = {"COLUMNS": "200"}
    shown = CliRunner(env=wide).invoke(app, ["show", "m@prod", "--registry", str(tmp_path)])
    assert shown.exit_code == 0, shown.output
    rows = dict(re.findall(r"│ (\S+) +│ (.*?) +│", shown.output))
    assert (rows["digest"], rows["aliases"]) == (version.digest, "prod")
    assert (rows["run"], rows["step"], rows["weights"]) == ("file:///runs/digits", "0", "average")
    assert (rows["selection.goal"], rows["selection.values.optim.peak_lr"]) == ("max", "0.001")
    assert rows["others_wrote"] == "7"
    printed = CliRunner().invoke(app, ["show", "m", "--registry", str(tmp_path), "--json"])
    assert json.loads(printed.output)["lineage"] == {**TRAINED, "selection": SELECTED, "others_wrote": 7}
