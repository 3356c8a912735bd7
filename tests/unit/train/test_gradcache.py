"""Micro-batches give the gradient of the whole batch: with dropout of torch's own, and with batch normalisation."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from raylens.models import Embedded
from raylens.objectives import contrastive_loss
from raylens.train.engine.forward import SampleLosses
from raylens.train.engine.gradcache import MicroBatch, accumulate_backward, gradcache_backward

D, B = 6, 12


class Towers(nn.Module):
    """Linear towers that draw from torch's generator."""

    def __init__(self, *, normalised: bool = False) -> None:
        super().__init__()
        self.image, self.text = nn.Linear(5, D), nn.Linear(4, D)
        self.norm = nn.BatchNorm1d(D) if normalised else nn.Identity()
        self.drop = nn.Dropout(0.3)
        self.log_scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, image: Tensor, text: Tensor, key: Tensor) -> Embedded:  # noqa: ARG002
        sides = (self.drop(self.norm(self.image(image))), self.drop(self.text(text)))
        image_bD, text_bD = (functional.normalize(side + 1e-3, dim=1) for side in sides)
        return Embedded(image_bD, text_bD, self.log_scale, None)


def micro_batches(count: int) -> list[MicroBatch]:
    generator = torch.Generator().manual_seed(1)
    image, text = torch.randn(B, 5, generator=generator), torch.randn(B, 4, generator=generator)
    return [MicroBatch(*parts) for parts in zip(*(x.chunk(count) for x in (image, text, torch.arange(B))), strict=True)]


def loss_of(embedded: Embedded) -> Tensor:
    return contrastive_loss(embedded.image_BD, embedded.text_BD, embedded.log_scale)


def backward(loss: Tensor, last: bool) -> None:
    loss.backward()


def gradients(module: nn.Module) -> list[Tensor]:
    found = [parameter.grad for parameter in module.parameters()]
    assert all(gradient is not None for gradient in found)
    return [gradient for gradient in found if gradient is not None]


def with_one_graph(towers: Towers, parts: Sequence[MicroBatch]) -> Tensor:
    """The same micro-batches with all graphs kept, which is what memory does not allow."""
    embedded = [towers(*part) for part in parts]
    image, text = (torch.cat([part[side] for part in embedded]) for side in (0, 1))
    loss = contrastive_loss(image, text, towers.log_scale)
    loss.backward()
    return loss.detach()


@pytest.mark.parametrize("count", [1, 2, 3, 12])
def test_the_second_pass_draws_what_the_first_drew(count: int) -> None:
    torch.manual_seed(0)
    towers, reference = Towers(), Towers()
    reference.load_state_dict(towers.state_dict())
    torch.manual_seed(7)
    wanted = with_one_graph(reference, micro_batches(count))
    after = torch.rand(3)
    torch.manual_seed(7)
    calls: list[bool] = []

    def heard(part: Tensor, last: bool) -> None:
        calls.append(last)
        part.backward()

    loss, embedded = gradcache_backward(towers, micro_batches(count), loss_of, heard)
    assert torch.equal(torch.rand(3), after)  # the generator stands where one pass leaves it
    assert calls == [False] * (count - 1) + [True]
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-6)
    assert not embedded.image_BD.requires_grad
    assert len(embedded.image_BD) == B
    for found, expected in zip(gradients(towers), gradients(reference), strict=True):
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_batch_statistics_are_learned_once() -> None:
    torch.manual_seed(0)
    towers, reference = Towers(normalised=True), Towers(normalised=True)
    reference.load_state_dict(towers.state_dict())
    torch.manual_seed(7)
    with_one_graph(reference, micro_batches(3))
    torch.manual_seed(7)
    gradcache_backward(towers, micro_batches(3), loss_of, backward)
    for (name, found), expected in zip(towers.named_buffers(), reference.buffers(), strict=True):
        assert torch.allclose(found, expected), name
    assert towers.norm.track_running_stats


@pytest.mark.parametrize("count", [1, 4])
def test_losses_of_their_own_are_averaged(count: int) -> None:
    weight = nn.Parameter(torch.randn(5, generator=torch.Generator().manual_seed(2)))

    class Each(nn.Module):
        def forward(self, image: Tensor, text: Tensor, key: Tensor) -> SampleLosses:  # noqa: ARG002
            return SampleLosses((image @ weight) ** 2, torch.tensor(2.0))

    found = accumulate_backward(Each(), micro_batches(count), backward)
    image = torch.cat([micro_batch.image_bSSC for micro_batch in micro_batches(1)])
    assert torch.allclose(found.loss_b, (image @ weight.detach()) ** 2)
    assert found.log_scale == 2.0
    wanted = 2 * ((image @ weight.detach())[:, None] * image).mean(0)
    assert weight.grad is not None
    assert torch.allclose(weight.grad, wanted, rtol=1e-5)
