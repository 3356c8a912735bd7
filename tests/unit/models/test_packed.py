"""Packed towers embed what the plain ones do."""

import copy

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raylens.config import BagOfWordsConfig, ModelConfig, ResNetConfig
from raylens.models import DualEncoder, pack
from raylens.models.packed import PackedAttention, PackedLinear
from tests.unit.models.test_towers import END, SMALL, images, texts

OTHER = ModelConfig(
    embed_dim=16,
    image=ResNetConfig(size=32, blocks=[1, 1, 1, 1], width=8),
    text=BagOfWordsConfig(context=77, vocab=600, width=32),
)


def packed(model: DualEncoder) -> DualEncoder:
    twin = copy.deepcopy(model)
    pack(twin)
    return twin


@given(seed=st.integers(0, 2**32), lengths=st.lists(st.integers(1, 77), min_size=1, max_size=5))
@settings(max_examples=15)
def test_packed_towers_embed_the_same(seed: int, lengths: list[int]) -> None:
    torch.manual_seed(seed)
    for config in (SMALL, OTHER):
        model = DualEncoder(config, end_id=END, mean=(0.5,) * 3, std=(0.5,) * 3).eval()
        twin = packed(model)
        assert any(isinstance(module, PackedLinear) for module in twin.modules()) or config is not SMALL
        with torch.inference_mode():
            torch.testing.assert_close(twin.encode_text(texts(lengths)), model.encode_text(texts(lengths)))
            torch.testing.assert_close(twin.encode_image(images()), model.encode_image(images()))


def test_packed_towers_in_bf16_keep_the_direction() -> None:
    """Packed where the processor has products in bf16; where it has none, they are left as they are."""
    torch.manual_seed(3)
    model = DualEncoder(SMALL, end_id=END, mean=(0.5,) * 3, std=(0.5,) * 3).eval()
    rounded = copy.deepcopy(model)
    rounded.multiply_in(torch.bfloat16)
    twin = packed(rounded)
    for at in (twin.text, twin.visual):
        packed_there = any(isinstance(module, PackedAttention) for module in at.modules())
        assert packed_there == torch.ops.mkldnn._is_mkldnn_bf16_supported()
    with torch.inference_mode():
        ids = texts([1, 5, 77])
        cosine = (twin.encode_text(ids) * model.encode_text(ids)).sum(-1)
        assert cosine.min() > 0.9995
        torch.testing.assert_close(twin.encode_image(images()), rounded.encode_image(images()), atol=1e-2, rtol=0)


def test_the_plain_layers_are_freed() -> None:
    twin = packed(DualEncoder(SMALL, end_id=END, mean=(0.5,) * 3, std=(0.5,) * 3).eval())
    inside = [module for tower in (twin.text, twin.visual) for module in tower.modules()]
    assert not any(isinstance(module, torch.nn.Linear) for module in inside)
    weights = [parameter for name, parameter in twin.named_parameters() if ".transformer." in name]
    assert sum(weight.numel() for weight in weights) < 32 * 32  # norms alone
