"""What a rank does for test_objectives_ranks.py: losses and gradients of its own rows of global batches."""

import warnings
from typing import Any

import torch
import torch.distributed as dist
from torch.nn import functional

from raylens.errors import TrainingError
from raylens.objectives import TileSize, capped_log_scale, contrastive_loss, sigmoid_loss


def step(case: dict[str, Any], rank: int, size: int, group: dist.ProcessGroup) -> dict[str, Any]:
    """Two linear towers on this rank's rows: the loss, and the gradients of all that they share."""
    image_bF, text_bF = (case[name].chunk(size)[rank] for name in ("image_BF", "text_BF"))
    shared = [case[name].clone().requires_grad_() for name in ("image_FD", "text_FD", "log_scale")]
    image_bD = functional.normalize(image_bF @ shared[0], dim=1)
    text_bD = functional.normalize(text_bF @ shared[1], dim=1)
    log_scale = capped_log_scale(shared[2], case["max_scale"], group=group)
    if case.get("sigmoid"):
        shared.append(torch.tensor(-3.0, dtype=image_bF.dtype).requires_grad_())
        loss = sigmoid_loss(image_bD, text_bD, log_scale, shared[3], group=group, tile=TileSize(case["tile_rows"]))
    else:
        loss = contrastive_loss(image_bD, text_bD, log_scale, group=group, tile=TileSize(case["tile_rows"]))
    loss.backward()
    return {"loss": loss.detach(), "grads": [leaf.grad for leaf in shared]}


def refused(rows: int, group: dist.ProcessGroup) -> str | None:
    """The message where a local batch of so many rows is refused."""
    embeddings = functional.normalize(torch.randn(rows, 4), dim=1)
    try:
        contrastive_loss(embeddings, embeddings, torch.zeros(()), group=group)
    except TrainingError as error:
        return str(error)
    return None


def unequal_batches(rank: int) -> dict[str, str | None]:
    """Refused by all at the first call; later by the rank that changes, without a word to the others."""
    messages = {"first": refused(3 + rank, new_group())}
    group = new_group()
    messages["equal"] = refused(3, group)
    messages["changed"] = refused(2, group) if rank == 0 else None
    return messages


def capped_gradients(rank: int) -> list[float]:
    """What is left of a gradient above the cap: the mean over ranks is positive first, then negative."""
    left_over = []
    for sign in (1.0, -1.0):
        log_scale = torch.tensor(6.0, requires_grad=True)
        (sign * (3.0 if rank else -1.0) * capped_log_scale(log_scale)).backward()
        assert log_scale.grad is not None
        left_over.append(log_scale.grad.item())
    return left_over


def new_group() -> dist.ProcessGroup:
    group = dist.new_group()
    assert isinstance(group, dist.ProcessGroup)
    return group


def on_rank(cases: list[dict[str, Any]], rank: int, size: int) -> list[dict[str, Any]]:
    """What this rank computed of each case; with more than one, also what is refused and what the cap leaves."""
    warnings.simplefilter("error")
    # A group of its own for every case: a group keeps its local batch.
    results: list[dict[str, Any]] = [step(case, rank, size, new_group()) for case in cases]
    if size > 1:
        results.append({"refused": unequal_batches(rank), "capped": capped_gradients(rank)})
    return results
