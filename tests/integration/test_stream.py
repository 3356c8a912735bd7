"""The stream for real: Ray Data deals out the plan's batches, whatever the number of workers and the interruptions."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import ray

from raylens.config import DataConfig, RunConfig, SourceConfig
from raylens.data.block import BlockMaker
from raylens.data.index import manifest_for
from raylens.data.pack import pack
from raylens.data.plan import build_plan
from raylens.data.stream import execution_options, ray_map, training_stream
from raylens.data.verify import deal_batches
from raylens.inputs import Preprocess, Tokenizer
from raylens.storage import Store, open_store
from tests.conftest import samples

MakeShards = Callable[..., Store]
Batch = dict[str, np.ndarray[Any, np.dtype[Any]]]
GLOBAL_BATCH = 24
STEPS = 14

pytestmark = pytest.mark.usefixtures("cluster")


def maker_for(tmp_path: Path, *stores: Store, **data: Any) -> BlockMaker:
    sources = [SourceConfig(uri=store.uri, weight=1.0 + number) for number, store in enumerate(stores)]
    config = RunConfig(
        name="r",
        seed=3,
        global_batch=GLOBAL_BATCH,
        data=DataConfig(train=sources, chunk_size=4, chunks_per_block=5, **data),
    )
    manifests = [manifest_for(source, open_store(tmp_path / "manifests"), ray_map) for source in config.data.train]
    texts = [text for manifest in manifests for text in manifest.captions()]
    return BlockMaker(
        plan=build_plan(config, manifests),
        homes=tuple(manifest.home for manifest in manifests),
        run_uri=str(tmp_path / "run"),
        preprocess=Preprocess(size=16),
        tokenizer_json=Tokenizer.train(texts, 600).to_json(),
        context=12,
        crop_min_scale=0.5,
        max_pixels=10_000,
    )


def consumed(maker: BlockMaker, workers: int, start: int, stop: int) -> list[list[Batch]]:
    """Of each step of ``start .. stop-1``, each worker's batch, as so many workers get them at the same time."""
    rows = GLOBAL_BATCH // workers
    stream = training_stream(maker, start=start * GLOBAL_BATCH, stop=stop * GLOBAL_BATCH, worker_batch=rows)
    stream.context.execution_options = execution_options()
    got: list[list[Batch]] = [[] for _ in range(workers)]

    def work(rank: int, iterator: Any) -> None:
        got[rank] = [
            {name: np.array(column) for name, column in batch.items()}
            for batch in iterator.iter_batches(batch_size=rows, batch_format="numpy")
        ]

    threads = [
        threading.Thread(target=work, args=(rank, iterator))
        for rank, iterator in enumerate(stream.streaming_split(workers, equal=True))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
        assert not thread.is_alive()
    return [list(step) for step in zip(*got, strict=True)]


def whole(step: list[Batch]) -> Batch:
    return {
        name: np.concatenate([batch[name] for batch in step])
        for name in ("sample", "epoch", "position", "image", "ids")
    }


def same(a: Batch, b: Batch) -> bool:
    return all(np.array_equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def maker(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> BlockMaker:
    """Of one set of shards."""
    folder = tmp_path_factory.mktemp("stream")
    shards = open_store(folder / "shards")
    pack(samples(110), shards, per_shard=10)
    return maker_for(folder, shards)


@pytest.fixture(scope="module")
def alone(maker: BlockMaker) -> list[list[Batch]]:
    """What one worker gets, over three epochs and a bit; blocks and epochs are no multiples of the batch."""
    return consumed(maker, 1, 0, STEPS)


def test_one_two_three_and_four_workers_get_the_same_global_batches(
    maker: BlockMaker, alone: list[list[Batch]]
) -> None:
    assert len(alone) == STEPS
    assert np.array_equal(np.concatenate([whole(step)["position"] for step in alone]), np.arange(STEPS * GLOBAL_BATCH))
    for workers in (2, 3, 4):
        many = consumed(maker, workers, 0, STEPS)
        assert all(same(whole(a), whole(b)) for a, b in zip(alone, many, strict=True)), workers
        model = list(deal_batches(maker.plan, GLOBAL_BATCH, workers, 0, STEPS))
        for step, hands in zip(many, model, strict=True):
            assert [batch["position"].tolist() for batch in step] == [hand.tolist() for hand in hands]


def test_a_resume_from_four_workers_to_two_loses_and_repeats_nothing(
    maker: BlockMaker, alone: list[list[Batch]]
) -> None:
    pieces = [*consumed(maker, 4, 0, 5), *consumed(maker, 2, 5, 12), *consumed(maker, 3, 12, STEPS)]
    assert all(same(whole(a), whole(b)) for a, b in zip(alone, pieces, strict=True))


def test_a_mixture_resumes_too(tmp_path: Path, make_shards: MakeShards) -> None:
    maker = maker_for(tmp_path, make_shards(50, name="one"), make_shards(90, name="two"))
    through = consumed(maker, 1, 0, 10)
    pieces = [*consumed(maker, 3, 0, 4), *consumed(maker, 2, 4, 10)]
    assert all(same(whole(a), whole(b)) for a, b in zip(through, pieces, strict=True))
    samples = np.concatenate([whole(step)["sample"] for step in through])
    assert (samples < 50).mean() == pytest.approx(1 / 3, abs=0.05)


def niceness_of_a_worker(**variables: str) -> int:
    task = ray.remote(lambda: psutil.Process().nice()).options(num_cpus=0, runtime_env={"env_vars": variables})
    return int(ray.get(task.remote()))


def test_workers_of_a_session_have_a_fair_share_of_the_processors_and_less_where_ray_is_told() -> None:
    own = psutil.Process().nice()
    assert niceness_of_a_worker() == own
    assert niceness_of_a_worker(RAY_worker_niceness="7") == min(own + 7, 19)
