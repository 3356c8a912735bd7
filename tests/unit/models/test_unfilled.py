"""Models that are built to be filled are those of the same configuration, at no cost."""

import subprocess
import sys

import pytest
import torch

from raylens.config import BagOfWordsConfig, ModelConfig, ResNetConfig
from raylens.models import DualEncoder, unfilled
from tests.unit.models.test_towers import END, SMALL

OTHER = ModelConfig(
    embed_dim=16,
    logit_bias=True,
    image=ResNetConfig(size=32, blocks=[1, 1, 1, 1], width=8),
    text=BagOfWordsConfig(context=77, vocab=600, width=32),
)
LOADED = """
import sys
from raylens.models import DualEncoder, unfilled
from tests.unit.models.test_unfilled import END, OTHER, SMALL
for config in (SMALL, OTHER):
    with unfilled():
        DualEncoder(config, end_id=END, mean=(0.5,) * 3, std=(0.5,) * 3)
print("torch._dynamo" in sys.modules, "torch._inductor" in sys.modules)
"""


def built(config: ModelConfig) -> DualEncoder:
    return DualEncoder(config, end_id=END, mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.mark.parametrize("config", [SMALL, OTHER], ids=["transformers", "others"])
def test_what_is_assigned_is_the_model(config: ModelConfig) -> None:
    torch.manual_seed(5)
    wanted = built(config)
    after = torch.get_rng_state()
    with unfilled():
        model = built(config)
    assert torch.equal(torch.get_rng_state(), after)  # nothing was drawn
    assert {one.device.type for one in model.state_dict().values()} == {"meta"}
    assert {name: (one.shape, one.dtype) for name, one in model.state_dict().items()} == {
        name: (one.shape, one.dtype) for name, one in wanted.state_dict().items()
    }
    model.load_state_dict(wanted.state_dict(), assign=True)
    torch.testing.assert_close(model.logit_scale, wanted.logit_scale)
    assert not [name for name, one in [*model.named_parameters(), *model.named_buffers()] if one.is_meta]


def test_weights_are_drawn_again_afterwards() -> None:
    with unfilled():
        built(SMALL)
    assert all(one.std() > 0 for one in built(SMALL).parameters() if one.ndim > 1)


def test_replicas_do_not_import_compilers() -> None:
    run = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]
