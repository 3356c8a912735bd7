"""The recipes' architectures are those that OpenCLIP has under the same names, tensor for tensor."""

import pytest
import torch

from raylens.interop.openclip import from_openclip, openclip_config
from raylens.models import DualEncoder
from raylens.workloads.recipes import RECIPES
from tests.parity.peers import open_clip

# Ours, OpenCLIP's, and the learning rate, epsilon and parameters in millions of Radford et al. 2021 and its weights.
TABLE = [
    ("rn50", "RN50-quickgelu", 5e-4, 1e-8, 102.01),
    ("rn101", "RN101-quickgelu", 5e-4, 1e-8, 119.69),
    ("rn50x4", "RN50x4-quickgelu", 5e-4, 1e-8, 178.30),
    ("rn50x16", "RN50x16-quickgelu", 4e-4, 1e-8, 290.98),
    ("rn50x64", "RN50x64-quickgelu", 3.6e-4, 1e-8, 623.26),
    ("vit_b32", "ViT-B-32-quickgelu", 5e-4, 1e-6, 151.28),
    ("vit_b16", "ViT-B-16-quickgelu", 5e-4, 1e-6, 149.62),
    ("vit_l14", "ViT-L-14-quickgelu", 4e-4, 1e-6, 427.62),
    ("vit_l14_336", "ViT-L-14-336-quickgelu", 2e-5, 1e-6, 427.94),
    ("vit_s16", "ViT-S-16", 5e-4, 1e-6, None),
    ("vit_b32_gelu", "ViT-B-32", 5e-4, 1e-6, 151.28),
]


@pytest.mark.parametrize(("name", "theirs", "peak_lr", "eps", "millions"), TABLE)
def test_presets(name: str, theirs: str, peak_lr: float, eps: float, millions: float | None) -> None:
    run = RECIPES[name]()
    assert run.name == name
    expected = openclip_config(open_clip().get_model_config(theirs))
    assert run.model == (expected.model_copy(update={"activation": "quick_gelu"}) if name == "vit_s16" else expected)
    assert (run.optim.peak_lr, run.optim.eps) == (peak_lr, eps)
    assert run.optim.beta2 == (0.98 if run.model.image.kind == "vit" else 0.999)
    assert (run.global_batch, run.optim.schedule.warmup_steps, run.optim.weight_decay) == (32_768, 2000, 0.2)
    with torch.device("meta"):
        ours = DualEncoder(run.model, end_id=0, mean=(0, 0, 0), std=(1, 1, 1))
        peer = open_clip().model.CLIP(**open_clip().get_model_config(theirs))
    shapes = {key: tensor.shape for key, tensor in from_openclip(peer.state_dict()).items()}
    assert {key: tensor.shape for key, tensor in ours.state_dict().items()} == shapes
    if millions is not None:
        assert sum(parameter.numel() for parameter in ours.parameters()) / 1e6 == pytest.approx(millions, abs=0.006)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_can_be_built(name: str) -> None:
    run = RECIPES[name]()
    assert run.name == name
    assert run == type(run).model_validate(run.model_dump())  # model_copy checks nothing
    with torch.device("meta"):
        model = DualEncoder(run.model, end_id=0, mean=(0, 0, 0), std=(1, 1, 1))
    assert (model.logit_bias is not None) == (run.objective.kind == "sigmoid")
