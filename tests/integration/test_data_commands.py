"""``raylens data`` and training over every format, as a user has them."""

import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from raylens.config import RunConfig, SourceConfig, dump_yaml, load_yaml, merge, validated
from raylens.data import Source
from raylens.messages import quiet
from raylens.storage import open_store
from raylens.train import train
from raylens.train.runs.jsonl import read_metrics
from raylens.workloads.cli.data import app
from tests.conftest import png, samples
from tests.integration.test_training import small

pytestmark = pytest.mark.usefixtures("cluster")

COUNT = 40
CLASSES = ("red fox", "snow owl")


@pytest.fixture
def everywhere(tmp_path: Path) -> dict[str, str]:
    """The same pairs as a table and as Parquet, and images by class."""
    pairs = list(samples(COUNT))
    images = tmp_path / "table" / "images"
    images.mkdir(parents=True)
    with (tmp_path / "table" / "pairs.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["filepath", "caption"])
        for pair in pairs:
            (images / f"{pair.key}.png").write_bytes(pair.image)
            writer.writerow([f"images/{pair.key}.png", pair.caption])
    (tmp_path / "parquet").mkdir()
    table = pa.table({"image": [pair.image for pair in pairs], "caption": [pair.caption for pair in pairs]})
    pq.write_table(table, tmp_path / "parquet" / "pairs.parquet", row_group_size=7)
    for number in range(12):
        folder = tmp_path / "classes" / CLASSES[number % 2].replace(" ", "_")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(png(20, 30, 500 + number))
    return {name: str(tmp_path / name) for name in ("table", "parquet", "classes")}


def raylens_data(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.stdout


def contents(uri: str) -> list[tuple[bytes | None, tuple[str, ...] | None]]:
    source, shards = Source.open(SourceConfig(uri=uri))
    return sorted((sample.image, sample.captions) for shard in shards for sample in source.walk(shard))


def test_shards_are_packed_from_every_format(tmp_path: Path, everywhere: dict[str, str]) -> None:
    for name, uri in everywhere.items():
        out = str(tmp_path / "packed" / name)
        told = raylens_data("pack", uri, out, "--per-shard", "8", "--manifests", str(tmp_path / "manifests"))
        assert contents(out) == contents(uri)
        assert f"{len(contents(uri)):,} samples in {-(-len(contents(uri)) // 8)} shards" in told
    captions = {text for _, texts in contents(str(tmp_path / "packed" / "classes")) for text in texts or ()}
    assert captions == set(CLASSES)


def test_larger_images_are_scaled_down_and_smaller_ones_left(tmp_path: Path) -> None:
    folder = tmp_path / "photos" / "cats"
    folder.mkdir(parents=True)
    for name, size in (("large", (300, 200)), ("small", (40, 50))):
        Image.new("RGB", size, (200, 100, 50)).save(folder / f"{name}.png")
    out = str(tmp_path / "out")
    common = ("--manifests", str(tmp_path / "manifests"))
    raylens_data("pack", str(folder.parent), out, "--shorter-edge", "64", *common)
    found = sorted(Image.open(io.BytesIO(image or b"")).size for image, _ in contents(out))
    assert found == [(40, 50), (96, 64)]


def test_index_and_stats_tell_what_there_is(tmp_path: Path, everywhere: dict[str, str]) -> None:
    common = ("--manifests", str(tmp_path / "manifests"))
    told = raylens_data("index", everywhere["parquet"], *common)
    assert f"{COUNT} samples in 1 shard," in told
    assert "(parquet)" in told
    assert "rejected: 0 (none rejected)" in told
    sheet = tmp_path / "sheet.png"
    page = raylens_data("stats", everywhere["parquet"], "--sheet", str(sheet), *common)
    assert str(COUNT) in page
    with Image.open(sheet) as picture:
        assert picture.size[0] > 400
    numbers = json.loads(raylens_data("stats", everywhere["parquet"], "--sheet", str(sheet), "--json", *common))
    assert numbers["samples"] == COUNT


@pytest.fixture
def mixture(tmp_path: Path, everywhere: dict[str, str]) -> Path:
    """A configuration over the three."""
    config = small(tmp_path, open_store(everywhere["table"]))
    sources = [
        {"uri": everywhere["table"]},
        {"uri": f"{everywhere['parquet']}/*.parquet", "weight": 2},
        {"uri": everywhere["classes"], "weight": 0.5},
    ]
    path = tmp_path / "mixture.yaml"
    tree = merge(load_yaml(dump_yaml(config), "small"), {"data": {"train": sources}})
    path.write_text(dump_yaml(validated(RunConfig, tree)))
    return path


def test_a_mixture_of_formats_is_trained_explained_and_verified(mixture: Path) -> None:
    config = validated(RunConfig, load_yaml(mixture.read_text(), str(mixture)))
    before = raylens_data("verify", str(mixture), "--workers", "1", "--workers", "4,3:2,5:3", "--epochs", "3")
    assert "not begun" in before
    result = train(config, say=quiet)
    told = raylens_data("verify", str(mixture), "--workers", "2", "--epochs", "3")
    assert f"{result.steps} steps of its metrics agree" in told
    assert "the same global batches under" in told
    assert "an epoch reads about" in told
    lines = raylens_data("explain", str(mixture), "--step", "3", "--rank", "1", "--json").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["position"] for row in rows] == list(range(2 * 12 + 6, 3 * 12))
    assert {row["source"] for row in rows} <= {0, 1, 2}
    assert all(0 <= row["crop"][0] < row["crop"][2] <= row["width"] for row in rows)
    table = raylens_data("explain", str(mixture), "--step", "3")
    assert len(table.splitlines()) == 12 + 3
    (records,) = [read_metrics(open_store(result.run_uri))]
    assert {record["bound"] for record in records} <= {"device", "storage", "decode", "network"}
    assert [record["first_batch_seconds"] is None for record in records] == [False] + [True] * (len(records) - 1)
