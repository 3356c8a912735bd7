"""One step over micro-batches, with the gradient of the whole batch.

The contrastive loss is no sum over micro-batches: each pair is told from all others. As in GradCache (Gao et al. 2021,
"Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", section 3) the embeddings are computed
without a graph, the loss is differentiated with respect to them, and a second pass takes these gradients through the
towers, a micro-batch at a time. Shapes: b a worker's pairs.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from raylens.models import Embedded
from raylens.train.engine.forward import Losses
from raylens.train.engine.rng_state import RngState

__all__ = ["Backward", "Micro", "over_pairs", "over_samples", "statistics_kept"]

Backward = Callable[[Tensor, bool], None]
"""Takes what to differentiate, and whether it is the last of the step."""


class Micro(NamedTuple):
    """Some of a worker's pairs."""

    image_bSSC: Tensor
    ids_bT: Tensor
    key_b: Tensor


def over_pairs(
    forward: nn.Module, micros: Sequence[Micro], loss_of: Callable[[Embedded], Tensor], backward: Backward
) -> tuple[Tensor, Embedded]:
    """The loss of a step and all embeddings, without graphs; its gradient goes to ``backward`` in parts.

    Args:
        forward: a micro-batch to the joint space.
        micros: all of the worker's pairs.
        loss_of: the loss over the global batch, whose gradient is taken at the embeddings of all of the worker's pairs.
        backward: adds up the gradients of what it is given, once for each micro-batch.
    """
    if len(micros) == 1:
        embedded: Embedded = forward(*micros[0])
        loss = loss_of(embedded)
        backward(loss, True)
        return loss.detach(), _detached(embedded)
    device = micros[0].image_bSSC.device
    parts, states = [], []
    with torch.no_grad(), statistics_kept(forward):
        for micro in micros:
            states.append(RngState.now(device))
            parts.append(forward(*micro))
    leaves = _leaves(parts)
    loss = loss_of(leaves)
    loss.backward()
    after, first = RngState.now(device), 0
    for number, (micro, state) in enumerate(zip(micros, states, strict=True), 1):
        state.restore(device)
        rows, last = slice(first, first + len(micro.ids_bT)), number == len(micros)
        backward(_surrogate(forward(*micro), leaves, rows, last=last), last)
        first = rows.stop
    after.restore(device)
    return loss.detach(), _detached(leaves)


def over_samples(forward: nn.Module, micros: Sequence[Micro], backward: Backward) -> Losses:
    """The losses of a worker's pairs where ``forward`` gives each a loss of its own; their mean is minimised."""
    samples = sum(len(micro.ids_bT) for micro in micros)
    losses = []
    for number, micro in enumerate(micros, 1):
        loss_b, log_scale = forward(*micro)
        backward(loss_b.sum() / samples, number == len(micros))
        losses.append(loss_b.detach())
    return Losses(torch.cat(losses), log_scale.detach())


def _leaves(parts: Sequence[Embedded]) -> Embedded:
    """The whole batch, from which the loss takes its gradients."""
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
    """What has, at the parameters, the gradient of the loss through these rows. The scale's is added once."""
    total = torch.zeros((), device=embedded.image_BD.device)
    for part, leaf in ((embedded.image_BD, leaves.image_BD), (embedded.text_BD, leaves.text_BD)):
        assert leaf.grad is not None
        total = total + (part * leaf.grad[rows]).sum()
    for value, of_value in ((embedded.log_scale, leaves.log_scale), (embedded.bias, leaves.bias)):
        if value is not None and of_value is not None and of_value.grad is not None:
            # Each micro-batch touches the scale, so that it has a gradient in every backward pass, as ZeRO expects.
            total = total + value * of_value.grad * (1.0 if last else 0.0)
    return total


@contextmanager
def statistics_kept(module: nn.Module) -> Iterator[None]:
    """Batch normalisation learns its running statistics in the second pass alone."""
    norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm) and norm.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
