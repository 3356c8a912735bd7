"""Backward passes over micro-batches that add up to the gradient of the whole batch.

The contrastive loss is not a sum over micro-batches: it compares each pair with all others. As in GradCache (Gao et al.
2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", section 3), a first pass computes the
embeddings without a graph, the loss is differentiated with respect to them, and a second pass takes these gradients
through the towers, one micro-batch at a time. Shapes: b pairs of a worker.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from raylens.models import Embedded
from raylens.train.engine.forward import SampleLosses
from raylens.train.engine.rng_state import RngState

__all__ = ["Backward", "MicroBatch", "accumulate_backward", "frozen_running_stats", "gradcache_backward"]

Backward = Callable[[Tensor, bool], None]
"""Takes the scalar to differentiate, and whether it is the last of the step."""


class MicroBatch(NamedTuple):
    """Some of a worker's pairs, which pass through the towers together."""

    image_bSSC: Tensor
    ids_bT: Tensor
    key_b: Tensor


def gradcache_backward(
    forward: nn.Module, micro_batches: Sequence[MicroBatch], loss_of: Callable[[Embedded], Tensor], backward: Backward
) -> tuple[Tensor, Embedded]:
    """Return the loss of a step and all embeddings, without graphs; ``backward`` receives the gradient in parts.

    Args:
        forward: embeds a micro-batch in the joint space.
        micro_batches: all pairs of the worker.
        loss_of: returns the loss over the global batch from the embeddings of all pairs of the worker.
        backward: accumulates the gradient of a scalar; called once for each micro-batch.
    """
    if len(micro_batches) == 1:
        embedded: Embedded = forward(*micro_batches[0])
        loss = loss_of(embedded)
        backward(loss, True)
        return loss.detach(), _detached(embedded)
    device = micro_batches[0].image_bSSC.device
    parts, states = [], []
    with torch.no_grad(), frozen_running_stats(forward):
        for micro_batch in micro_batches:
            states.append(RngState.now(device))
            parts.append(forward(*micro_batch))
    leaves = _leaves(parts)
    loss = loss_of(leaves)
    loss.backward()
    after, first = RngState.now(device), 0
    for number, (micro_batch, state) in enumerate(zip(micro_batches, states, strict=True), 1):
        state.restore(device)
        rows, last = slice(first, first + len(micro_batch.ids_bT)), number == len(micro_batches)
        backward(_surrogate(forward(*micro_batch), leaves, rows, last=last), last)
        first = rows.stop
    after.restore(device)
    return loss.detach(), _detached(leaves)


def accumulate_backward(forward: nn.Module, micro_batches: Sequence[MicroBatch], backward: Backward) -> SampleLosses:
    """Return the loss of each pair where the objective is their mean; ``backward`` receives it in parts."""
    samples = sum(len(micro_batch.ids_bT) for micro_batch in micro_batches)
    losses = []
    for number, micro_batch in enumerate(micro_batches, 1):
        loss_b, log_scale = forward(*micro_batch)
        backward(loss_b.sum() / samples, number == len(micro_batches))
        losses.append(loss_b.detach())
    return SampleLosses(torch.cat(losses), log_scale.detach())


def _leaves(parts: Sequence[Embedded]) -> Embedded:
    """Return the embeddings of the whole batch as leaves, which receive the gradients of the loss."""
    whole = _detached(
        Embedded(
            torch.cat([part.image_BD for part in parts]),
            torch.cat([part.text_BD for part in parts]),
            parts[0].log_scale.clone(),
            parts[0].bias,
        )
    )
    for leaf in whole:
        if leaf is not None:
            leaf.requires_grad_()
    return whole


def _detached(embedded: Embedded) -> Embedded:
    image_BD, text_BD, log_scale, bias = embedded
    return Embedded(image_BD.detach(), text_BD.detach(), log_scale.detach(), None if bias is None else bias.detach())


def _surrogate(embedded: Embedded, leaves: Embedded, rows: slice, *, last: bool) -> Tensor:
    """Return a scalar with the same gradient at the parameters as the loss has through these rows.

    The gradients of scale and bias are added once, with the last micro-batch.
    """
    total = torch.zeros((), device=embedded.image_BD.device)
    for part, leaf in ((embedded.image_BD, leaves.image_BD), (embedded.text_BD, leaves.text_BD)):
        assert leaf.grad is not None
        total = total + (part * leaf.grad[rows]).sum()
    for value, of_value in ((embedded.log_scale, leaves.log_scale), (embedded.bias, leaves.bias)):
        if value is not None and of_value is not None and of_value.grad is not None:
            # Every micro-batch includes the scale, because ZeRO expects a gradient of it in every backward pass.
            total = total + value * of_value.grad * (1.0 if last else 0.0)
    return total


@contextmanager
def frozen_running_stats(module: nn.Module) -> Iterator[None]:
    """Keep batch normalisation from updating its running statistics, which only the second pass does."""
    norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm) and norm.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
