"""The budget of a run, against real models, real optimisers, real losses, and sums written out by hand."""

import json
import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from typer.testing import CliRunner

from raylens.config import RunConfig, validated
from raylens.errors import ConfigError
from raylens.estimate.counts import counts_of
from raylens.estimate.machine import Machine
from raylens.estimate.memory import memory_of
from raylens.estimate.step import Estimate, estimate
from raylens.estimate.traffic import all_gather, all_reduce, reduce_scatter, traffic_of
from raylens.models import DualEncoder
from raylens.objectives import contrastive_loss
from raylens.objectives.contrastive import DENSE_ENTRIES
from raylens.train.engine.forward import Forward, build_forward
from raylens.train.engine.optimizer import build_optimizer
from raylens.workloads.cli.app import app

TOKENS, END = 20, 1
VIT = {"kind": "vit", "size": 32, "patch": 8, "width": 64, "layers": 3, "heads": 2}
RESNET = {"kind": "resnet", "size": 64, "blocks": [1, 1, 1, 1], "width": 8}
TEXT = {"context": TOKENS, "vocab": 600, "width": 32, "layers": 2, "heads": 2}


def config(**changes: Any) -> RunConfig:
    tree = {"name": "m", "global_batch": 4096, "scale": {"workers": 1}, "data": {"train": "x"}}
    tree["model"] = {"embed_dim": 16, "image": changes.pop("image", VIT), "text": TEXT}
    return validated(RunConfig, tree | changes)


def real(of: RunConfig) -> Forward:
    return build_forward(DualEncoder(of.model, end_id=END, mean=(0.5,) * 3, std=(0.5,) * 3), of)


def embedded(forward: Forward, pairs: int) -> Any:
    size = forward.model.config.image.size
    ids_bT = torch.full((pairs, TOKENS), 5)
    ids_bT[:, -1] = END
    image_bSSC = torch.randint(0, 256, (pairs, size, size, 3), dtype=torch.uint8)
    return forward(image_bSSC, ids_bT, torch.arange(pairs))


def size_of(tensors: Any) -> int:
    return sum(tensor.nbytes for tensor in tensors)


class Live(TorchDispatchMode):
    """Bytes of tensors that operations made and that are alive, and the most that there were."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live, self.peak = 0, 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {one.untyped_storage()._cdata for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)}
        out = func(*args, **(kwargs or {}))
        for one in tree_leaves(out):
            if isinstance(one, Tensor) and one.untyped_storage()._cdata not in self._seen | given:
                storage = one.untyped_storage()
                self._seen.add(storage._cdata)
                self.live += storage.nbytes()
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        return out

    def _gone(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.live -= size


@pytest.mark.parametrize("kind", ["adamw", "lion"])
@pytest.mark.parametrize("locked", [False, True])
def test_state_is_that_of_a_real_optimiser(kind: str, locked: bool) -> None:
    of = config(
        zero={"stage": 0}, optim={"kind": kind}, towers={"lock_text": locked}, objective={"learn_scale": not locked}
    )
    forward = real(of)
    optimizer = build_optimizer(forward, of.optim)
    image_bD, text_bD, log_scale, _ = embedded(forward, 2)
    contrastive_loss(image_bD, text_bD, log_scale).backward()
    optimizer.step()
    found = memory_of(of, counts_of(of, TOKENS), TOKENS, 1, 64)
    assert found.weights == size_of(forward.parameters())
    assert found.gradients == size_of(one.grad for one in forward.parameters() if one.grad is not None)
    moments = [one for state in optimizer.state.values() for one in state.values() if getattr(one, "ndim", 0)]
    assert found.moments == size_of(moments)
    assert (found.masters, found.average, found.buckets, found.casts) == (0, 0, 0, 0)


def test_each_stage_spreads_what_it_should() -> None:
    for_none = config(optim={"ema_decay": 0.9})
    counts = counts_of(for_none, TOKENS)
    P, part = counts.trainable, -(-counts.trainable // 4)
    found = {
        stage: memory_of(for_none.model_copy(update={"zero": zero}), counts, TOKENS, 4, 64)
        for stage, zero in ((stage, for_none.zero.model_copy(update={"stage": stage})) for stage in range(4))
    }
    assert [found[stage].gradients for stage in range(4)] == [4 * P, 4 * P, 4 * part, 4 * part]
    assert [found[stage].moments for stage in range(4)] == [8 * P, 8 * part, 8 * part, 8 * part]
    assert [found[stage].masters for stage in range(4)] == [0, 4 * part, 4 * part, 4 * part]
    assert [found[stage].average for stage in range(4)] == [4 * P, 4 * part, 4 * part, 4 * part]
    assert [found[stage].buckets for stage in range(4)] == [0, *[2_000_000_000] * 3]
    half = config(precision="bf16", zero={"stage": 2, "offload_optimizer": True})
    offloaded = memory_of(half, counts, TOKENS, 4, 64)
    assert (offloaded.weights, offloaded.masters, offloaded.moments) == (2 * P, 0, 0)


@pytest.mark.parametrize("image", [VIT, RESNET])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_what_is_kept_is_what_a_real_model_keeps(image: dict[str, Any], checkpointed: bool) -> None:
    of = config(image=image, towers={"checkpoint_blocks": checkpointed})
    forward = real(of)
    found, loss_and_norms = counts_of(of, TOKENS).kept_bytes, 2 * 16 * 4 + 2 * 4  # unit vectors and their lengths
    few, many = (kept(forward, pairs) for pairs in (2, 6))
    assert found <= (many - few) / 4 <= found + 3 * loss_and_norms


@pytest.mark.parametrize("checkpointed", [False, True])
def test_what_autocast_keeps_is_counted(checkpointed: bool) -> None:
    of = config(precision="amp_bf16", towers={"checkpoint_blocks": checkpointed})
    few, many = (kept(real(of), pairs) for pairs in (2, 6))
    counts = counts_of(of, TOKENS)
    assert counts.kept_bytes == pytest.approx((many - few) / 4, rel=0.01)
    assert counts.kept_bytes < 0.9 * counts_of(config(towers=of.towers.model_dump()), TOKENS).kept_bytes
    if not checkpointed:  # else most of the casts are kept in autocast's cache alone
        saved = few - (many - few) / 2  # of biases the cast is made, but not kept
        assert saved <= 2 * counts.cast <= 1.05 * saved


def kept(forward: Forward, pairs: int) -> int:
    held: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        out = embedded(forward, pairs)
    del out
    for parameter in forward.parameters():
        held.pop(parameter.untyped_storage()._cdata, None)
    return sum(one.untyped_storage().nbytes() for one in held.values())


@pytest.mark.parametrize("precision", ["fp32", "amp_bf16"])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_the_peak_of_both_passes_is_foreseen(precision: str, checkpointed: bool) -> None:
    image = VIT | {"size": 64, "patch": 8, "width": 96, "layers": 4}
    of = config(image=image, precision=precision, towers={"checkpoint_blocks": checkpointed}, global_batch=16)
    forward = real(of)
    with Live() as live:
        out = embedded(forward, 16)
        (out.image_BD.sum() + out.text_BD.sum()).backward()
    found = memory_of(of, counts_of(of, TOKENS), TOKENS, 1, 16)
    foreseen = found.activations + found.casts + found.gradients + found.inputs
    assert 0.7 * foreseen < live.peak <= foreseen


@pytest.mark.parametrize("pairs", [1024, 3000])
def test_the_memory_of_the_loss_is_foreseen(pairs: int) -> None:
    of = config(global_batch=pairs)
    image_bD, text_bD = (torch.nn.functional.normalize(torch.randn(pairs, 16)).requires_grad_() for _ in "it")
    with Live() as live:
        contrastive_loss(image_bD, text_bD, torch.tensor(2.0, requires_grad=True)).backward()
    foreseen = memory_of(of, counts_of(of, TOKENS), TOKENS, 1, 1).loss
    assert 0.6 * foreseen < live.peak <= foreseen


def test_rings() -> None:
    for gather in (all_gather, reduce_scatter):
        assert [gather(1200.0, workers) for workers in (1, 2, 4)] == [0.0, 600.0, 900.0]
    assert [all_reduce(1200.0, workers) for workers in (1, 2, 4)] == [0.0, 1200.0, 1800.0]


def test_one_worker_sends_nothing() -> None:
    for stage in range(4):
        of = config(zero={"stage": stage})
        assert traffic_of(of, counts_of(of, TOKENS), 1, 4).total == 0.0


# Of each stage, passes over all parameters of a gradient's and of a weight's bytes that two workers send, as two real
# DeepSpeed engines (0.19.8) on gloo were seen to send them: (single micro-batch, four of them).
SEEN = {
    (0, "amp_bf16"): ((4, 0), (4, 0)),
    (1, "amp_bf16"): ((4, 2), (4, 2)),
    (2, "amp_bf16"): ((4, 2), (16, 2)),
    (3, "amp_bf16"): ((2, 2), (8, 24)),
    (1, "bf16"): ((2, 1), (2, 1)),
    (2, "bf16"): ((2, 1), (8, 1)),
    (3, "bf16"): ((1, 1), (4, 12)),
}


@pytest.mark.parametrize(("stage", "precision"), SEEN)
def test_traffic_is_what_deepspeed_sends(stage: int, precision: str) -> None:
    of = config(zero={"stage": stage}, precision=precision)
    counts = counts_of(of, TOKENS)
    for micro_batches, (gradients, weights) in zip((1, 4), SEEN[stage, precision], strict=True):
        found = traffic_of(of, counts, 2, micro_batches)
        assert found.gradients == gradients * counts.parameters
        assert found.weights == weights * counts.parameters
        assert found.embeddings == 2 * 4096 * 16 * 4 / 2  # there and back
        assert found.sums == 8 * (2 * 4096 + 2)


def test_weights_beyond_the_reuse_distance_are_gathered_twice() -> None:
    deepspeed = {"zero_optimization": {"stage3_max_reuse_distance": 10, "stage3_prefetch_bucket_size": 0}}
    near, far = config(zero={"stage": 3}), config(zero={"stage": 3, "deepspeed": deepspeed})
    counts = counts_of(far, TOKENS)
    assert traffic_of(far, counts, 2, 1).weights == 2 * traffic_of(near, counts, 2, 1).weights
    bytes_kept = [memory_of(of, counts, TOKENS, 1, 4096).weights for of in (near, far)]
    assert bytes_kept == [8 * counts.parameters, 4 * counts.parameters + 4 * counts.largest_module]


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3), st.sampled_from(["fp32", "amp_bf16", "bf16"]), st.integers(0, 5), st.integers(0, 5))
def test_more_workers_never_need_more_memory(stage: int, precision: str, few: int, parts: int) -> None:
    of = config(zero={"stage": stage}, precision=precision)
    counts = counts_of(of, TOKENS)
    less, more = (
        memory_of(of, counts, TOKENS, workers, of.global_batch // workers // 2**parts).total
        for workers in (2 ** (few + 1), 2**few)
    )
    assert less <= more + 8 * DENSE_ENTRIES  # the logits that the loss keeps where they are few


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 3), st.booleans(), st.integers(0, 6), st.integers(0, 5))
def test_a_larger_micro_batch_never_needs_less_memory(stage: int, checkpointed: bool, workers: int, small: int) -> None:
    of = config(zero={"stage": stage}, towers={"checkpoint_blocks": checkpointed})
    counts = counts_of(of, TOKENS)
    less, more = (memory_of(of, counts, TOKENS, 2**workers, micro).total for micro in (2**small, 2 ** (small + 1)))
    assert less <= more


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 3), st.floats(1e8, 1e11), st.sampled_from([1, 2, 8, 64, 96]))
def test_the_micro_batch_is_the_largest_that_fits(stage: int, memory: float, workers: int) -> None:
    of = config(zero={"stage": stage}, global_batch=64 * 96)
    machine = Machine(memory_bytes=memory)
    found = estimate(of, machine, workers=workers)
    assert found.fits == (found.memory.total <= machine.usable * memory)
    assert (
        found.worker_batch % (2 * found.micro_batch)
        or not estimate(of, machine, workers=workers, micro_batch=2 * found.micro_batch).fits
    )


def test_time_follows_from_operations_and_bytes() -> None:
    of = config(zero={"stage": 1}, global_batch=8192, precision="amp_bf16")
    machine = Machine(flops=1e12, fp32_flops=1e11, mfu=0.5, node_size=2, inside_bandwidth=9e9, between_bandwidth=1e9)
    counts = counts_of(of, TOKENS)
    forward = counts.image_flops + counts.text_flops
    once, twice = (estimate(of, machine, workers=8, micro_batch=micro) for micro in (1024, 512))
    assert once.tower_seconds == pytest.approx(1024 * 3 * forward / 5e11)
    assert twice.tower_seconds == pytest.approx(1024 * 4 * forward / 5e11)
    assert once.loss_seconds == pytest.approx(8 * 1024 * 8192 * 16 / 5e10)
    assert once.network_seconds == pytest.approx(once.traffic.total / 2e9)  # a node's two adapters together
    assert estimate(of, machine, workers=2).network_seconds == pytest.approx(
        estimate(of, workers=2).traffic.total / 9e9
    )
    assert once.pairs_per_second == pytest.approx(8192 / once.seconds)
    assert once.days(once.pairs_per_second * 86_400) == pytest.approx(1.0)
    again = estimate(
        of.model_copy(update={"towers": of.towers.model_copy(update={"checkpoint_blocks": True})}),
        machine,
        workers=8,
        micro_batch=1024,
    )
    assert again.tower_seconds == pytest.approx(1024 * 4 * forward / 5e11)


def test_a_faster_network_hides_what_a_slower_one_cannot() -> None:
    def of(bandwidth: float) -> Estimate:
        run = config(zero={"stage": 3}, precision="amp_bf16")
        return estimate(run, Machine(inside_bandwidth=bandwidth), workers=8, micro_batch=64)

    slow, fast = of(1e6), of(1e12)
    assert (slow.hides, fast.hides) == (False, True)
    assert slow.compute_seconds < slow.best_seconds < slow.seconds
    assert fast.best_seconds == pytest.approx(fast.compute_seconds + fast.embedding_seconds)


@pytest.mark.parametrize(
    ("changes", "given", "words"),
    [
        ({}, {"workers": 3}, "workers = 3"),
        ({}, {"workers": 2, "micro_batch": 3}, "micro_batch = 3"),
        ({"objective": {"kind": "caption"}}, {}, "objective.kind = 'caption'"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], given: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        estimate(config(**changes), **given)  # type: ignore[arg-type]


def test_a_machine_without_figures_is_refused() -> None:
    for name, value in (("flops", 0.0), ("mfu", 1.5), ("between_bandwidth", float("nan"))):
        with pytest.raises(ConfigError, match=name):
            replace(Machine(), **{name: value})  # type: ignore[arg-type]


def command(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["estimate", "vit_ti16", *arguments], env={"COLUMNS": "200"})


def test_the_command_prints_a_row_for_each_combination() -> None:
    given = ["--set", "precision=amp_bf16", "--set", "zero.stage=2", "--workers", "8,64", "--global-batch", "4096,8192"]
    found = command(*given)
    assert found.exit_code == 0, found.output
    assert "amp_bf16, ZeRO 2" in found.output
    rows = [line for line in found.output.splitlines() if " x " in line and "│" in line]
    assert len(rows) == 4
    listed = json.loads(command(*given, "--json").output)
    assert [(one["global_batch"], one["workers"]) for one in listed] == [(4096, 8), (4096, 64), (8192, 8), (8192, 64)]
    for one in listed:
        assert one["micro_batches"] * one["micro_batch"] * one["workers"] == one["global_batch"]
        assert one["memory_bytes"] > one["state_bytes"] > one["memory"]["weights"] > 0


def test_the_command_says_that_nothing_fits_and_what_is_wrong() -> None:
    assert "nothing fits" in command("--memory", "0.5").output
    assert isinstance(command("--workers", "8,x").exception, ConfigError)
    assert isinstance(command("--workers", "7").exception, ConfigError)
    assert "measurement" in " ".join(command("--help").output.replace("│", " ").split())
