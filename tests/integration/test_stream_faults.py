"""Training over a store with bad days: the same batches as on good ones, or one line that says what is wrong."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from raylens.config import RunConfig, apply_overrides, validated
from raylens.data.pack import pack
from raylens.errors import ManifestError, QuarantineError, RaylensError, StorageError
from raylens.messages import quiet
from raylens.storage import Store, open_store
from raylens.train import train
from raylens.train.loop.events import Metrics, RunEvent
from raylens.train.runs.jsonl import read_metrics
from tests.conftest import samples
from tests.helpers.faulty_store import FAULTS, faulty_store
from tests.integration.conftest import new_bucket
from tests.integration.test_trained import put_back
from tests.shared_ray import S3_ENVIRONMENT

STEPS = 30


def small(storage: str, data: str, **changes: object) -> RunConfig:
    tree = {
        "name": "small",
        "storage": storage,
        "global_batch": 12,
        "data": {"train": data, "chunk_size": 1, "chunks_per_block": 8, "crop_min_scale": 0.7},
        "model": {
            "embed_dim": 16,
            "image": {"size": 16, "patch": 8, "width": 32, "layers": 1, "heads": 2},
            "text": {"context": 12, "vocab": 600, "width": 32, "layers": 1, "heads": 2},
        },
        "optim": {"peak_lr": 2e-3, "schedule": {"warmup_steps": 2}},
        "length": {"samples_seen": 12 * STEPS},
        "checkpoint": {"every_steps": 15},
        "log_every_steps": 5,
    }
    return validated(RunConfig, apply_overrides(tree, [f"{key}={value}" for key, value in changes.items()]))


def hashes(run_uri: str) -> list[str]:
    return [word for record in read_metrics(open_store(run_uri)) for word in record["sample_hashes"]]


@dataclass(frozen=True)
class Clean:
    """A run over shards in a bucket of a store without faults."""

    bucket: str
    config: RunConfig
    run_uri: str


@pytest.fixture(scope="module")
def clean(cluster: None, s3_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clean]:
    """Whoever changes its shards puts them back."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in S3_ENVIRONMENT.items():
            patch.setenv(name, value)
        bucket = new_bucket(s3_server)
        shards = bucket.replace("?", "/shards?")
        pack(samples(150), open_store(shards), per_shard=15)
        config = small(str(tmp_path_factory.mktemp("clean")), shards)
        yield Clean(bucket, config, train(config, say=quiet).run_uri)


@pytest.mark.usefixtures("s3_environment")
def test_faults_on_a_twentieth_of_all_requests_change_nothing(clean: Clean, s3_server: str) -> None:
    with faulty_store(s3_server) as store:
        uri = clean.bucket.replace(s3_server, store.uri)
        result = train(small(uri.replace("?", "/runs?"), uri.replace("?", "/shards?")), say=quiet)
        assert set(store.injected) == set(FAULTS), store.injected
        assert sum(store.injected.values()) >= 12
    assert result.steps == STEPS
    found = hashes(clean.bucket.replace("?", "/runs/small?"))
    assert len(set(found)) == STEPS
    assert found == hashes(clean.run_uri)


@pytest.mark.usefixtures("cluster")
class TestAnObjectThatChanges:
    """The manifest fixes a version: what is read later is that, or an error that names the object."""

    def run(self, config: RunConfig, change: Callable[[], None]) -> RaylensError:
        changed = False

        def at_the_first_record(event: RunEvent) -> None:
            nonlocal changed
            if isinstance(event, Metrics) and not changed:
                changed = True
                change()

        with pytest.raises(RaylensError) as caught:
            train(config, say=quiet, on_event=at_the_first_record)
        assert changed
        return caught.value

    def test_in_mid_run(self, tmp_path: Path, s3_bucket: str) -> None:
        shards = open_store(s3_bucket.replace("?", "/shards?"))
        pack(samples(60), shards, per_shard=15)
        config = small(str(tmp_path / "runs"), s3_bucket.replace("?", "/shards?"), **{"length.samples_seen": 12 * 2000})

        def swap() -> None:
            # Two pictures in another order: the same size, the same samples, other places.
            shards.write("000001.tar", shards.read("000001.tar")[::-1])

        error = self.run(config, swap)
        assert isinstance(error, StorageError | ManifestError)
        assert "000001.tar" in str(error)
        assert "changed" in str(error)
        assert "\n" not in str(error)

    @pytest.mark.usefixtures("s3_environment")
    def test_between_two_starts(self, tmp_path: Path, clean: Clean) -> None:
        shards = open_store(clean.bucket.replace("?", "/shards?"))
        other = open_store(tmp_path / "other")
        pack(list(samples(165))[150:], other, per_shard=15)
        with put_back(shards, "000002.tar"):
            shards.write("000002.tar", other.read("000000.tar"))
            with pytest.raises(ManifestError, match=r"000002\.tar changed"):
                train(clean.config, say=quiet)


def one_line(*arguments: str, cwd: Path) -> str:
    """What a command says that cannot work, in a process that has met no store yet."""
    program = "from raylens.workloads.cli import main; main()"
    command = [sys.executable, "-c", program, *arguments]
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    (line,) = result.stderr.splitlines()
    assert result.returncode in (1, 2)
    assert line.startswith("error: ")
    return line


def test_a_bucket_that_is_missing_is_named_in_one_line(tmp_path: Path, s3_bucket: str) -> None:
    line = one_line("data", "index", s3_bucket.replace("s3://raylens-", "s3://never-made-"), cwd=tmp_path)
    assert "bucket" in line
    assert "never-made-" in line


def test_credentials_that_are_missing_are_asked_for_in_one_line(
    tmp_path: Path, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert "credentials" in one_line("data", "index", s3_bucket, cwd=tmp_path)


@pytest.mark.usefixtures("cluster")
def test_over_the_budget_the_reasons_are_counted(tmp_path: Path) -> None:
    store: Store = open_store(tmp_path / "shards")
    pairs = list(samples(40))
    broken = [pair.__class__(pair.key, b"no image", "jpg", pair.caption) for pair in pairs[:9]]
    silent = [pair.__class__(pair.key, pair.image, "png", " ") for pair in pairs[9:13]]
    pack([*broken, *silent, *pairs[13:]], store, per_shard=20)
    store.write("000001.tar", store.read("000001.tar")[:-12_000])
    with pytest.raises(QuarantineError, match=r"9 not an image, 4 empty caption, 1 truncated or damaged shard"):
        train(small(str(tmp_path / "runs"), store.uri), say=quiet)
