"""Checkpoints: pieces of parameters through files and back, what makes one exist, and which are kept."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from raylens.config import CheckpointConfig, ModelConfig
from raylens.data import Plan
from raylens.data.order import FixedChunkOrder
from raylens.errors import CheckpointError, NotFoundError, StorageError
from raylens.evaluate.metrics import Metric
from raylens.models import DualEncoder
from raylens.storage import open_store
from raylens.train.checkpoint.async_save import AsyncSaver, SaveOutcome
from raylens.train.checkpoint.consolidate import Consolidator, consolidate
from raylens.train.checkpoint.cursor import Cursor
from raylens.train.checkpoint.fragments import WEIGHT, Fragment, copy_into, key_of, parse_key, worker_slice
from raylens.train.checkpoint.retention import best_scores, prune, steps_to_keep
from raylens.train.checkpoint.snapshot import Snapshot
from raylens.train.checkpoint.store import CheckpointManifest, Checkpoints
from raylens.train.engine.rng_state import local_state, restore_local_state

PLAN = Plan((FixedChunkOrder(100, "a" * 64, 1, 4, 4, 100),), seed=1)


def cuts(draw: st.DrawFn, count: int) -> list[tuple[int, int]]:
    """``count`` elements in any number of consecutive spans."""
    inner = draw(st.lists(st.integers(0, count), max_size=5))
    marks = sorted({0, count, *inner})
    return list(itertools.pairwise(marks))


@st.composite
def two_divisions(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]], list[tuple[int, int]]]:
    count = draw(st.integers(1, 60))
    return count, cuts(draw, count), cuts(draw, count)


@given(two_divisions())
def test_pieces_cut_in_one_way_fill_fragments_cut_in_another(
    divisions: tuple[int, list[tuple[int, int]], list[tuple[int, int]]],
) -> None:
    count, before, after = divisions
    whole = {WEIGHT: torch.arange(count).float(), "exp_avg": -torch.arange(count).float()}
    pieces = {key_of("a.b", low, kind): tensor[low:high] for kind, tensor in whole.items() for low, high in before}
    pieces[key_of("other", 0, WEIGHT)] = torch.full((count,), 99.0)
    into = {kind: torch.full((count,), 7.0) for kind in whole}
    fragments = [
        Fragment("a.b", low, high, {kind: tensor[low:high] for kind, tensor in into.items()}) for low, high in after
    ]
    assert copy_into(fragments, pieces) == 2 * count
    assert all(torch.equal(into[kind], whole[kind]) for kind in whole)
    del pieces[key_of("a.b", before[0][0], WEIGHT)]
    assert copy_into(fragments, pieces) == 2 * count - (before[0][1] - before[0][0])


@given(st.text("ab.:", min_size=1), st.integers(0, 10**12), st.sampled_from([WEIGHT, "exp_avg", "ema"]))
def test_names_in_files_are_read_back(name: str, start: int, kind: str) -> None:
    assert parse_key(key_of(name, start, kind)) == (name, start, kind)


@given(st.integers(0, 50), st.integers(1, 9))
def test_shares_are_a_partition(count: int, workers: int) -> None:
    whole = Fragment("x", 0, count, {WEIGHT: torch.arange(count)})
    shares = [worker_slice(whole, rank, workers) for rank in range(workers)]
    assert torch.equal(torch.cat([share.tensors[WEIGHT] for share in shares]), torch.arange(count))
    assert max(share.stop - share.start for share in shares) - min(s.stop - s.start for s in shares) <= 1


class Alone:
    """The only worker."""

    rank = 0

    def all_max(self, values: list[int]) -> list[int]:
        return values

    def all_gather(self, thing: object) -> list[object]:
        return [thing]


class Both:
    """Two workers that are threads."""

    def __init__(self) -> None:
        self._barrier = threading.Barrier(2, timeout=30)
        self._slots: list[object] = [None, None]

    def of(self, rank: int) -> "OneOfBoth":
        return OneOfBoth(self, rank)

    def exchange(self, rank: int, thing: object) -> list[object]:
        self._slots[rank] = thing
        self._barrier.wait()
        things = list(self._slots)
        self._barrier.wait()
        return things


class OneOfBoth:
    def __init__(self, both: Both, rank: int) -> None:
        self._both, self.rank = both, rank

    def all_max(self, values: list[int]) -> list[int]:
        mine, other = self._both.exchange(self.rank, values)
        assert isinstance(mine, list)
        assert isinstance(other, list)
        return [max(pair) for pair in zip(mine, other, strict=True)]

    def all_gather(self, thing: object) -> list[object]:
        return self._both.exchange(self.rank, thing)


def manifest(step: int, workers: int = 1) -> CheckpointManifest:
    return CheckpointManifest(
        step=step,
        attempt=f"try{step}",
        workers=workers,
        zero_stage=1,
        precision="fp32",
        micro_batch=4,
        applied=step,
        scaler={},
        cursor=Cursor.at(step, PLAN, 8),
    )


def snapshot(rank: int = 0, workers: int = 1) -> Snapshot:
    whole = Fragment("model.w", 0, 10, {WEIGHT: torch.arange(10).float(), "exp_avg": torch.ones(10)})
    mine = worker_slice(whole, rank, workers)
    tensors = {key_of("model.w", mine.start, kind): tensor.clone() for kind, tensor in mine.tensors.items()}
    return Snapshot(tensors, {"random:cpu": torch.full((3,), rank, dtype=torch.uint8)})


def loss_of(value: float) -> Metric:
    return Metric("validation_loss", value, "min")


def save(checkpoints: Checkpoints, step: int, *metrics: Metric) -> SaveOutcome:
    saver = AsyncSaver(checkpoints, Alone())
    saver.begin(snapshot(), manifest(step), lambda: metrics, lambda: None)
    outcome = saver.wait()
    assert outcome is not None
    return outcome


def test_two_workers_save_and_others_read(tmp_path: Path) -> None:
    checkpoints, both = Checkpoints(open_store(tmp_path)), Both()
    then: list[int] = []

    def work(rank: int) -> SaveOutcome | None:
        saver = AsyncSaver(checkpoints, both.of(rank))
        saver.begin(
            snapshot(rank, 2), manifest(6, workers=2), lambda: (Metric("rank", rank, "max"),), lambda: then.append(rank)
        )
        return saver.wait()

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(work, range(2)))
    assert outcomes == [SaveOutcome(6), SaveOutcome(6)]
    assert then == [0]
    newest = checkpoints.newest()
    assert newest is not None
    assert newest.metric("rank") == Metric("rank", 0.0, "max")
    assert newest.metric("loss") is None
    pieces, local = checkpoints.pieces(newest, [("model.w", 0, 10)], 1)
    assert sum(len(tensor) for key, tensor in pieces.items() if parse_key(key)[2] == WEIGHT) == 10
    assert local["random:cpu"].tolist() == [1, 1, 1]
    # Of what a worker does not need, nothing is read; a third worker takes up what was the first one's.
    pieces, local = checkpoints.pieces(newest, [("model.w", 7, 9)], None)
    assert local["random:cpu"].tolist() == [0, 0, 0]
    assert {parse_key(key)[1] for key in pieces} == {0, 5}


def test_nothing_exists_where_one_worker_s_upload_fails(tmp_path: Path) -> None:
    checkpoints, both = Checkpoints(open_store(tmp_path)), Both()

    class Full(Checkpoints):
        def upload(self, *_: object, **__: object) -> object:  # type: ignore[override]
            raise StorageError("no space left")

    def work(rank: int) -> list[SaveOutcome | None]:
        mine = Full(open_store(tmp_path)) if rank else checkpoints
        broken, whole = AsyncSaver(mine, both.of(rank)), AsyncSaver(checkpoints, both.of(rank))
        outcomes = []
        for step, saver in ((3, broken), (4, whole)):
            saver.begin(snapshot(rank, 2), manifest(step, workers=2), tuple, lambda: None)
            outcomes.append(saver.wait())
        return outcomes

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(work, range(2)))
    assert outcomes == [[SaveOutcome(3, "no space left"), SaveOutcome(4)]] * 2
    assert checkpoints.steps() == [4]
    assert list(checkpoints.leftovers().values()) == [3]
    assert prune(checkpoints, CheckpointConfig())[1] == ["step-00000003/try3/worker-00000.safetensors"]
    assert not checkpoints.leftovers()


def test_a_folder_that_cannot_be_written_to_is_an_outcome(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    outcome = save(Checkpoints(open_store(tmp_path)), 5)
    assert outcome.step == 5
    assert "checkpoints" in outcome.failure


def test_a_step_that_was_saved_before_stays_as_it_is(tmp_path: Path) -> None:
    checkpoints = Checkpoints(open_store(tmp_path))
    first = save(checkpoints, 5)
    before = {info.path: info.version for info in checkpoints.store.list()}
    assert save(checkpoints, 5) == first
    assert {info.path: info.version for info in checkpoints.store.list() if "checkpoint.json" in info.path} == {
        path: version for path, version in before.items() if "checkpoint.json" in path
    }


def test_a_changed_or_missing_file_is_named(tmp_path: Path) -> None:
    checkpoints = Checkpoints(open_store(tmp_path))
    save(checkpoints, 5)
    newest = checkpoints.manifest(5)
    path = f"step-00000005/{newest.files[0].path}"
    whole = checkpoints.store.read(path)
    checkpoints.store.write(path, whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=r"worker-00000\.safetensors of step 5 .* differs from the hash"):
        checkpoints.pieces(newest, [("model.w", 0, 10)], 0)
    checkpoints.store.delete(path)
    with pytest.raises(NotFoundError, match=r"worker-00000\.safetensors"):
        checkpoints.pieces(newest, [("model.w", 0, 10)], 0)


@pytest.mark.parametrize("older", [b'"format": 2', b'"format": 2, "unknown": 1'], ids=["same-fields", "other-fields"])
def test_another_format_is_refused_before_its_fields_are_read(tmp_path: Path, older: bytes) -> None:
    checkpoints = Checkpoints(open_store(tmp_path))
    save(checkpoints, 5)
    text = checkpoints.store.read("step-00000005/checkpoint.json")
    checkpoints.store.write("step-00000005/checkpoint.json", text.replace(b'"format": 3', older))
    with pytest.raises(CheckpointError, match="has format 2, this version of raylens reads 3"):
        checkpoints.manifest(5)
    checkpoints.store.write("step-00000005/checkpoint.json", text[:-9])
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoints.manifest(5)


@given(st.dictionaries(st.integers(1, 40), st.floats(0, 1), max_size=12), st.integers(1, 4), st.integers(0, 3))
def test_retention(scores: dict[int, float], last: int, best: int) -> None:
    config = CheckpointConfig(keep_last=last, keep_every=10, keep_best=best, best_by="validation_loss")
    keep = steps_to_keep({step: loss_of(score) for step, score in scores.items()}, config)
    steps = sorted(scores)
    assert keep <= set(steps)
    assert set(steps[-last:]) <= keep
    assert {step for step in steps if step % 10 == 0} <= keep
    assert len(keep) <= last + best + sum(step % 10 == 0 for step in steps)
    if best and scores:
        assert min(scores.values()) in {scores[step] for step in keep}
    upward = CheckpointConfig(keep_last=last, keep_best=1, best_by="zero_shot_loss")
    top = steps_to_keep({step: Metric("zero_shot_loss", score, "max") for step, score in scores.items()}, upward)
    assert not scores or max(scores.values()) in {scores[step] for step in top}
    # Where the metric was never evaluated, nothing is best.
    assert steps_to_keep(dict.fromkeys(scores), config) == set(steps[-last:]) | {s for s in steps if s % 10 == 0}


def test_pruning_deletes_by_the_rules(tmp_path: Path) -> None:
    checkpoints = Checkpoints(open_store(tmp_path))
    for step, loss in ((2, 0.5), (4, 0.1), (6, 0.3), (8, 0.2)):
        save(checkpoints, step, loss_of(loss))
    gone, _ = prune(checkpoints, CheckpointConfig(keep_last=1, keep_best=1))
    assert gone == [2, 6]
    assert checkpoints.steps() == [4, 8]
    assert {info.path.split("/")[0] for info in checkpoints.store.list()} == {"step-00000004", "step-00000008"}


@pytest.mark.parametrize("name", ["frank", "loss"])
def test_the_best_of_a_labelled_set_is_the_most_accurate_whatever_its_name(tmp_path: Path, name: str) -> None:
    checkpoints = Checkpoints(open_store(tmp_path))
    for step, accuracy in ((2, 0.5), (4, 0.9), (6, 0.3), (8, 0.2)):
        save(checkpoints, step, Metric(f"zero_shot_{name}", accuracy, "max"))
    prune(checkpoints, CheckpointConfig(keep_last=1, keep_best=1, best_by=f"zero_shot_{name}"))
    assert checkpoints.steps() == [4, 8]


def test_checkpoints_without_goals_are_compared_by_metrics_of_our_own_and_by_no_other(tmp_path: Path) -> None:
    checkpoints = Checkpoints(open_store(tmp_path))
    for step, accuracy in ((2, 0.9), (4, 0.1)):
        values = {"zero_shot_frank": accuracy, "frank": accuracy}
        checkpoints.publish(manifest(step).model_copy(update={"metrics": values}))
    by = CheckpointConfig(keep_last=1, keep_best=1, best_by="zero_shot_frank")
    assert steps_to_keep(best_scores(map(checkpoints.manifest, [2, 4]), by), by) == {2, 4}
    assert checkpoints.manifest(2).metric("zero_shot_frank") == Metric("zero_shot_frank", 0.9, "max")
    with pytest.raises(CheckpointError, match=r"checkpoint\.json of step 2 has frank = 0\.9 without a goal"):
        prune(checkpoints, CheckpointConfig(keep_last=1, keep_best=1, best_by="frank"))
    assert prune(checkpoints, CheckpointConfig(keep_last=1, best_by="frank"))[0] == [2]


def test_generators_and_statistics_go_on() -> None:
    module = torch.nn.BatchNorm1d(3)
    module(torch.randn(8, 3))
    torch.manual_seed(3)
    saved = local_state(module, torch.device("cpu"))
    expected, statistics = torch.rand(4), module.running_mean
    assert statistics is not None
    statistics = statistics.clone()
    module(torch.randn(8, 3) + 5)
    restore_local_state(saved, module, torch.device("cpu"))
    assert torch.equal(torch.rand(4), expected)
    assert module.running_mean is not None
    assert torch.equal(module.running_mean, statistics)


def test_weights_are_put_together_and_what_is_missing_is_named() -> None:
    config = ModelConfig.model_validate(
        {
            "embed_dim": 8,
            "image": {"kind": "resnet", "size": 32, "blocks": (1, 1, 1, 1), "width": 8},
            "text": {"context": 6, "vocab": 600, "width": 8, "layers": 1, "heads": 2},
        }
    )
    model = DualEncoder(config, end_id=1, mean=(0.5,) * 3, std=(0.5,) * 3)
    parts: list[dict[str, Tensor]] = [{}, {}, {}]
    for name, parameter in model.named_parameters():
        whole = Fragment(f"model.{name}", 0, parameter.numel(), {WEIGHT: parameter.detach().flatten()})
        for rank, part in enumerate(parts):
            share = worker_slice(whole, rank, 3)
            if share.stop > share.start:
                part[key_of(share.name, share.start, WEIGHT)] = share.tensors[WEIGHT]
    with pytest.raises(CheckpointError, match=r"lacks .*running_mean"):
        consolidate(config, parts)
    assembly = Consolidator(config, averaged=False)
    for part in parts:
        assembly.add(part, local_state(torch.nn.ModuleDict({"model": model}), torch.device("cpu")))
    weights = assembly.weights()
    assert weights.keys() == model.state_dict().keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
