"""Training the other towers and objectives for real, and what each setting leaves in the registered model."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from raylens.config import RunConfig, apply_overrides, validated
from raylens.errors import ConfigError, ManifestError
from raylens.inputs import Tokenizer
from raylens.messages import quiet
from raylens.registry import Registry
from raylens.storage import Store, open_store
from raylens.train import train
from raylens.train.checkpoint.store import Checkpoints
from raylens.train.loop.events import RunEvent, Started
from raylens.train.run.prepare import prepare
from raylens.train.runs.jsonl import read_metrics
from tests.integration.test_training import reference_losses, small

MakeShards = Callable[..., Store]
RESNET = {"kind": "resnet", "size": 32, "blocks": [1, 1, 1, 1], "width": 8}
CBOW = {"kind": "cbow", "context": 12, "vocab": 600, "width": 16}

pytestmark = pytest.mark.usefixtures("cluster")


def losses(config: RunConfig, on_event: Callable[[RunEvent], None] | None = None) -> list[float]:
    result = train(config, say=quiet, on_event=on_event)
    return [record["loss"] for record in read_metrics(open_store(result.run_uri))]


def weights(config: RunConfig) -> dict[str, Tensor]:
    return dict(Registry(config.registry_uri).load(config.name)[1].bundle.weights)


def changed(config: RunConfig, *assignments: str) -> RunConfig:
    return validated(RunConfig, apply_overrides(config.model_dump(mode="json"), assignments))


def test_a_resnet_and_a_bag_of_words_learn_under_zero_3(tmp_path: Path, make_shards: MakeShards) -> None:
    """On one worker: BatchNorm's statistics are those of a worker's own part of the batch."""
    config = small(tmp_path, make_shards(40), **{"zero.stage": 3, "scale.workers": 1})
    tree = config.model_dump(mode="json") | {"model": {"embed_dim": 16, "image": RESNET, "text": CBOW}}
    config = validated(RunConfig, tree)
    assert losses(config) == pytest.approx(reference_losses(config), rel=2e-3)
    trained = weights(config)
    kept = Checkpoints(open_store(config.storage) / config.name).newest()
    assert kept is not None
    assert kept.micro_batch == config.global_batch  # as chosen: so few pairs fit
    assert trained["visual.bn1.num_batches_tracked"] == 8
    assert trained["visual.bn1.running_mean"].abs().sum() > 0


def test_a_micro_batch_is_announced_and_kept_and_the_bias_is_in_the_model(
    tmp_path: Path, make_shards: MakeShards
) -> None:
    """That the loss and every update are those of one worker and batch is shown by test_accumulation.py."""
    sigmoid = ("objective.kind=sigmoid", "model.logit_bias=true", "objective.temperature=0.1", "zero.stage=2")
    towers = ("towers.dropout=0.1", "towers.patch_dropout=0.25", "scale.micro_batch=2")
    config = changed(small(tmp_path, make_shards(40)), *sigmoid, *towers)
    heard: list[RunEvent] = []
    assert min(losses(config, heard.append)) > 0
    started = next(event for event in heard if isinstance(event, Started))
    assert (started.micro_batch, started.micro_batches) == (2, 3)
    kept = Checkpoints(open_store(config.storage) / config.name).newest()
    assert kept is not None
    assert kept.micro_batch == 2
    bias = weights(config)["logit_bias"]
    assert bias.shape == (1,)
    assert bias.item() != -10.0


def test_runs_that_start_from_a_model_keep_a_locked_tower_or_take_larger_images(
    tmp_path: Path, make_shards: MakeShards
) -> None:
    first = small(tmp_path, make_shards(40))
    train(first, say=quiet)
    locked = changed(first, "name=lit", "start_from=small@1", "towers.lock_image=true", "seed=5", "zero.stage=3")
    train(locked, say=quiet)
    before, after = weights(first), weights(locked)
    same = {name for name, tensor in before.items() if torch.equal(tensor, after[name])}
    assert same == {name for name in before if name.startswith("visual.")}
    larger = changed(first, "name=larger", "start_from=small@1", "model.image.size=24", "optim.layer_decay=0.7")
    # The same pairs at another resolution: it begins where training ended, not where it began.
    assert losses(larger)[0] < reference_losses(changed(first, "name=fresh", "model.image.size=24"), steps=1)[0]
    assert weights(larger)["visual.positional_embedding"].shape == (10, 32)
    with pytest.raises(ConfigError, match=r"start_from = 'small@1' .*: model\.embed_dim was 16"):
        prepare(changed(locked, "name=other", "model.embed_dim=8"), quiet)


def test_a_given_tokenizer_is_used_and_must_fit(tmp_path: Path, make_shards: MakeShards) -> None:
    tokenizer = Tokenizer.train(["a red cat and a small house"] * 3, 540)
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_json())
    config = small(tmp_path, make_shards(40), tokenizer=str(tmp_path / "tokenizer.json"))
    assert prepare(config, quiet).tokenizer.identity() == tokenizer.identity()
    with pytest.raises(ConfigError, match=r"has 5\d\d tokens, model\.text\.vocab"):
        prepare(changed(config, "name=tight", "model.text.vocab=514"), quiet)


def test_a_start_that_failed_keeps_no_name(tmp_path: Path, make_shards: MakeShards) -> None:
    config = small(tmp_path, make_shards(40))
    with pytest.raises(ManifestError, match="there is no such folder"):
        prepare(changed(config, f"data.train={tmp_path}/nowhere"), quiet)
    assert prepare(config, quiet).steps == 8
