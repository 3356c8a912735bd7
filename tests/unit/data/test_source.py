"""Which shards and which format a data set's URI means."""

from pathlib import Path

import pytest

from raylens.config import SourceConfig
from raylens.data import Source
from raylens.errors import ConfigError, ManifestError


def write(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def opened(uri: str, **settings: str) -> tuple[str, list[str]]:
    source, shards = Source.open(SourceConfig.model_validate({"uri": uri, **settings}))
    return source.format_name, [shard.path for shard in shards]


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    return write(
        tmp_path / "mixed",
        *("00000.tar", "00001.tar", "00000.parquet", "more.csv", "cats/1.jpg", "cats/2.jpg", "dogs/1.jpg"),
    )


def test_tars_come_first_and_the_rest_is_beside_them(mixed: Path) -> None:
    assert opened(str(mixed)) == ("tar", ["00000.tar", "00001.tar"])


@pytest.mark.parametrize(
    ("pattern", "format_name", "shards"),
    [
        ("*.tar", "tar", ["00000.tar", "00001.tar"]),
        ("{00001..00001}.tar", "tar", ["00001.tar"]),
        ("00000.parquet", "parquet", ["00000.parquet"]),
        ("*.csv", "table", ["more.csv"]),
        ("{cats,dogs}", "folder", ["cats", "dogs"]),
        ("c*s", "folder", ["cats"]),
    ],
)
def test_a_pattern_says_what_is_meant(mixed: Path, pattern: str, format_name: str, shards: list[str]) -> None:
    assert opened(f"{mixed}/{pattern}") == (format_name, shards)


@pytest.mark.parametrize(
    ("format_name", "shards"),
    [("parquet", ["00000.parquet"]), ("table", ["more.csv"]), ("folder", ["cats", "dogs"])],
)
def test_a_format_that_is_asked_for_is_taken(mixed: Path, format_name: str, shards: list[str]) -> None:
    assert opened(str(mixed), format=format_name) == (format_name, shards)


def test_a_named_shard_that_is_missing_is_an_error(mixed: Path) -> None:
    with pytest.raises(ManifestError, match=r"1 of 3 shards .* \(00002\.tar\)"):
        opened(f"{mixed}/{{00000..00002}}.tar")
    with pytest.raises(ManifestError, match=r"no shards .* that match \*\.jsonl under .*mixed"):
        opened(f"{mixed}/*.jsonl")


def test_a_folder_may_have_a_pattern_for_a_name(tmp_path: Path) -> None:
    folder = write(tmp_path / "run[1]{a}", "0.tar")
    assert opened(str(folder)) == ("tar", ["0.tar"])


def test_nothing_there_says_what_would_do(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"no shards \(\*\.tar, .*raylens data pack"):
        opened(str(write(tmp_path, "notes.txt")))
    with pytest.raises(ManifestError, match="of format 'parquet'"):
        opened(str(tmp_path), format="parquet")
    with pytest.raises(ConfigError):
        opened("s3://{a,b}/x.tar")
