"""Loss and towers on the device against fp64 on the CPU."""

import pytest
import torch

from raylens.config import ModelConfig, TextTransformerConfig, VisionTransformerConfig
from raylens.inputs.preprocess import CLIP_MEAN, CLIP_STD
from raylens.models import DualEncoder
from raylens.objectives import contrastive_loss


@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
def test_contrastive_loss_on_the_device(gpu: torch.device, scale: float) -> None:
    raw = [torch.randn(300, 96, dtype=torch.float64) for _ in range(2)]
    image_BD, text_BD = (torch.nn.functional.normalize(one + 0.5 * raw[0], dim=-1) for one in raw)
    leaves = [image_BD.clone().requires_grad_(), text_BD.clone().requires_grad_()]
    logits = scale * leaves[0] @ leaves[1].T
    target = torch.arange(300)
    loss = (torch.nn.functional.cross_entropy(logits, target) + torch.nn.functional.cross_entropy(logits.T, target)) / 2
    loss.backward()
    expected = [leaf.grad for leaf in leaves]
    there = [one.to(gpu, torch.float32).requires_grad_() for one in (image_BD, text_BD)]
    found = contrastive_loss(there[0], there[1], torch.tensor(scale, device=gpu).log())
    found.backward()
    assert found.item() == pytest.approx(loss.item(), rel=1e-4)
    for leaf, reference in zip(there, expected, strict=True):
        assert leaf.grad is not None
        assert reference is not None
        assert torch.allclose(leaf.grad.cpu().double(), reference, rtol=1e-3, atol=1e-4 * reference.abs().max().item())


def test_towers_on_the_device(gpu: torch.device) -> None:
    config = ModelConfig(
        embed_dim=64,
        image=VisionTransformerConfig(size=32, patch=8, width=64, layers=2, heads=2),
        text=TextTransformerConfig(context=16, vocab=700, width=64, layers=2, heads=2),
    )
    model = DualEncoder(config, end_id=1, mean=CLIP_MEAN, std=CLIP_STD)
    pixels = torch.randint(0, 256, (5, 32, 32, 3), dtype=torch.uint8)
    ids = torch.randint(2, 400, (5, 16))
    ids[:, 7] = 1
    here = [part.detach() for part in model(pixels, ids) if part is not None]
    there = [part.detach().cpu() for part in model.to(gpu)(pixels.to(gpu), ids.to(gpu)) if part is not None]
    for one, other in zip(here, there, strict=True):
        assert torch.allclose(one, other, atol=1e-4)
