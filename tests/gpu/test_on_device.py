"""Loss and towers on the device against fp64 on the CPU."""

import pytest
import torch

from raylens.config import ModelConfig, TextTransformerConfig, VisionTransformerConfig
from raylens.inputs.preprocess import CLIP_MEAN, CLIP_STD
from raylens.models import DualEncoder
from raylens.objectives import contrastive_loss
from raylens.objectives.products import Precision


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


@pytest.mark.parametrize(("products", "tolerance"), [("fp32", 1e-5), ("tf32", 2e-3), ("bf16", 1e-2)])
@pytest.mark.parametrize("width", [512, 640, 768, 1024])
def test_the_kernels_on_the_device(gpu: torch.device, products: Precision, tolerance: float, width: int) -> None:
    torch.manual_seed(width)
    rows = 4099  # divides by nothing
    image_BD, noise_BD = (torch.nn.functional.normalize(torch.randn(rows, width, device=gpu), dim=-1) for _ in "ab")
    text_BD = torch.nn.functional.normalize(image_BD + 3 * noise_BD, dim=-1)
    inputs = (image_BD, text_BD, torch.tensor(30.0, device=gpu).log())
    ours, truth = ([x.clone().to(dtype).requires_grad_() for x in inputs] for dtype in (torch.float, torch.double))
    found, wanted = contrastive_loss(*ours, matmul_precision=products), contrastive_loss(*truth)
    found.backward()
    wanted.backward()
    assert found.item() == pytest.approx(wanted.item(), rel=tolerance)
    for a, b in zip(ours, truth, strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert (a.grad - b.grad).norm() <= tolerance * b.grad.norm()


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
