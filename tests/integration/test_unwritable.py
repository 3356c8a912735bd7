"""A store that does not take what a run writes."""

from collections.abc import Callable

import pytest

from raylens.cluster import session
from raylens.config import RunConfig, apply_overrides, validated
from raylens.registry import Registry
from raylens.storage import Store, open_store
from raylens.train import train
from raylens.train.checkpoint import Checkpoints
from raylens.train.metrics import read_metrics
from raylens.train.progress import Checkpointed, Metrics, News, Restarting, Warned
from tests.integration.faulty_store import faulty_store

MakeShards = Callable[..., Store]


def config_of(data: Store, storage: str, *changes: str) -> RunConfig:
    tree = {
        "name": "kept",
        "storage": storage,
        "global_batch": 12,
        "data": {"train": data.uri, "run_length": 4, "runs_per_unit": 4},
        "model": {
            "embed_dim": 16,
            "image": {"size": 16, "patch": 8, "width": 32, "layers": 2, "heads": 2},
            "text": {"context": 12, "vocab": 600, "width": 32, "layers": 1, "heads": 2},
        },
        "optim": {"peak_lr": 2e-3, "schedule": {"warmup_steps": 2}, "eps": 1e-6},
        "length": {"samples_seen": 12 * 120},
        "checkpoint": {"every_steps": 10, "keep_last": 1},
        "tracking": {"tensorboard": False},
        "log_every_steps": 1,
    }
    return validated(RunConfig, apply_overrides(tree, changes))


def test_a_bucket_that_takes_nothing_for_a_while_costs_no_step(
    make_shards: MakeShards, s3_bucket: str, s3_server: str
) -> None:
    data, heard = make_shards(40), list[News]()
    kept: list[int] = []
    with faulty_store(s3_server) as store, session(num_cpus=5):
        store.every = 0
        storage = s3_bucket.replace(s3_server, store.uri)
        config = config_of(data, storage)
        checkpoints = Checkpoints(open_store(storage) / "kept")

        def tell(news: News) -> None:
            heard.append(news)
            if isinstance(news, Checkpointed) and news.step == 20:
                store.read_only = True
            if isinstance(news, Metrics) and news.record.step == 80:
                newest = checkpoints.newest()
                assert newest is not None
                assert len(list(checkpoints.parts(newest, newest.files))) == 2  # each verified
                kept.append(newest.step)
                store.read_only = False

        version = train(config, say=lambda _: None, tell=tell).version
        assert Registry(config.registry_uri).load(str(version))[1].bundle.lineage["step"] == 120
    assert kept[0] in (20, 30)
    warnings = [news.text for news in heard if isinstance(news, Warned)]
    assert any("step 30 could not be saved" in text and "refuses access" in text for text in warnings)
    assert any("records are kept back" in text for text in warnings)
    assert not [news for news in heard if isinstance(news, Restarting)]
    saved = [news.step for news in heard if isinstance(news, Checkpointed)]
    assert saved[-1] == 120
    assert len([step for step in saved if step > 80]) >= 3
    records = read_metrics(open_store(s3_bucket) / "kept")
    assert [record["step"] for record in records] == list(range(1, 121))


@pytest.fixture(autouse=True)
def _credentials(s3_environment: None) -> None:
    """Before Ray's processes begin."""
