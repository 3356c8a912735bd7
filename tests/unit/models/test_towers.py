"""Text towers without padding, the bag of words, and the settings under which towers are trained."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from raylens.config import (
    BagOfWordsConfig,
    ModelConfig,
    OptimConfig,
    ResNetConfig,
    TextTransformerConfig,
    TowersConfig,
    VisionTransformerConfig,
)
from raylens.models import DualEncoder
from raylens.models.layout import Layout
from raylens.models.text import TextTransformer
from raylens.models.training import prepare_towers
from raylens.models.transformer import Block
from raylens.train.engine.optimizer import parameter_groups

END = 599
TEXT = TextTransformerConfig(context=77, vocab=600, width=32, layers=3, heads=4)
SMALL = ModelConfig(
    embed_dim=16, image=VisionTransformerConfig(size=32, patch=8, width=32, layers=3, heads=4), text=TEXT
)


def built(config: ModelConfig = SMALL, **towers: object) -> DualEncoder:
    torch.manual_seed(5)
    model = DualEncoder(config, end_id=END, mean=(0.5,) * 3, std=(0.5,) * 3)
    return prepare_towers(model, TowersConfig.model_validate(towers))


def texts(lengths: list[int], seed: int = 0) -> Tensor:
    ids = torch.randint(1, END, (len(lengths), 77), generator=torch.Generator().manual_seed(seed))
    for row, length in zip(ids, lengths, strict=True):
        row[length - 1], row[length:] = END, 0
    return ids


def images(count: int = 4) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8))


def padded(tower: TextTransformer, ids_BT: Tensor) -> Tensor:
    """The tower as it is usually computed: every row whole, all tokens through all blocks."""
    x = tower.token_embedding(ids_BT) + tower.positional_embedding
    batch, tokens, width = x.shape
    layout = Layout.even(batch, tokens, x.device)
    x = x.flatten(0, 1)
    for block in tower.transformer:
        assert isinstance(block, Block)
        x = block(x, layout)
    end_B = (ids_BT == END).int().argmax(dim=1)
    out: Tensor = tower.ln_final(x.view(batch, tokens, width)[torch.arange(batch), end_B]) @ tower.text_projection
    return out


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(2, 77), min_size=1, max_size=24), st.integers(0, 999))
def test_leaving_padding_out_changes_neither_outputs_nor_gradients(lengths: list[int], seed: int) -> None:
    tower = built().double().text
    assert isinstance(tower, TextTransformer)
    ids = texts(lengths, seed)
    weights = torch.randn(len(lengths), 16, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    found: list[tuple[Tensor, dict[str, Tensor]]] = []
    for compute in (lambda: tower(ids, torch.tensor(lengths) - 1), lambda: padded(tower, ids)):
        tower.zero_grad()
        out = compute()
        (out * weights).sum().backward()
        grads = {name: p.grad.clone() for name, p in tower.named_parameters() if p.grad is not None}
        found.append((out.detach(), grads))
    (packed, packed_grads), (whole, whole_grads) = found
    # LayerNorm and so the outputs are computed in fp32, also of an fp64 tower.
    torch.testing.assert_close(packed, whole, rtol=1e-5, atol=1e-5)
    assert packed_grads.keys() == whole_grads.keys() == {name for name, _ in tower.named_parameters()}
    for name, grad in packed_grads.items():
        torch.testing.assert_close(grad, whole_grads[name], rtol=1e-4, atol=1e-4, msg=name)


@given(st.lists(st.integers(1, 77), min_size=1, max_size=60))
def test_a_layout_holds_every_token_once_and_little_else(lengths: list[int]) -> None:
    layout = Layout.of(lengths, 77, torch.device("cpu"))
    places = sorted(row * 77 + at for row, length in enumerate(lengths) for at in range(length))
    assert sorted(layout.source_N.tolist()) == places
    assert layout.source_N[layout.last_B[layout.rank_B]].tolist() == [
        row * 77 + length - 1 for row, length in enumerate(lengths)
    ]
    assert sum(group.tokens for group in layout.groups) == sum(lengths)
    assert sum(group.batch for group in layout.groups) == len(lengths)
    assert sum(group.batch * group.longest for group in layout.groups) <= 1.5 * sum(lengths) + 8 * len(lengths)
    assert len(layout.groups) <= 8


class TestBagOfWords:
    CONFIG = SMALL.model_copy(update={"text": BagOfWordsConfig(context=77, vocab=600, width=24)})

    def test_is_the_mean_of_its_words(self) -> None:
        model = built(self.CONFIG).eval()
        ids = texts([2, 9, 77])
        with torch.no_grad():
            found = model.encode_text(ids)
            state = model.state_dict()
            words = [row[1:length] for row, length in zip(ids, [2, 9, 77], strict=True)]
            means = torch.stack([state["text.token_embedding.weight"][row].mean(0) for row in words])
            expected = torch.nn.functional.layer_norm(means, (24,)) @ state["text.text_projection"]
        torch.testing.assert_close(found, torch.nn.functional.normalize(expected, dim=1), rtol=1e-5, atol=1e-6)

    def test_order_means_nothing(self) -> None:
        model, ids = built(self.CONFIG).eval(), texts([9])
        other = ids.clone()
        other[0, 1:8] = ids[0, 1:8].flip(0)
        torch.testing.assert_close(model.encode_text(ids), model.encode_text(other))


class TestSettings:
    def gradients(self, model: DualEncoder) -> dict[str, Tensor | None]:
        torch.manual_seed(1)
        image_BD, text_BD, log_scale, _ = model(images(), texts([3, 9, 30, 77]))
        (log_scale.exp() * image_BD @ text_BD.T).log_softmax(1).diagonal().sum().backward()
        return {name: parameter.grad for name, parameter in model.named_parameters()}

    def test_checkpointed_blocks_give_the_same_gradients(self) -> None:
        plain, again = self.gradients(built()), self.gradients(built(checkpoint_blocks=True))
        for name, grad in plain.items():
            torch.testing.assert_close(grad, again[name])

    @pytest.mark.parametrize("tower", ["image", "text"])
    def test_a_locked_tower_gets_no_gradient_and_stays_in_evaluation_mode(self, tower: str) -> None:
        resnet = SMALL.model_copy(update={"image": ResNetConfig(size=32, blocks=(1, 1, 1, 1), width=8)})
        model = built(resnet, **{f"lock_{tower}": True})
        before = {name: tensor.clone() for name, tensor in model.named_buffers()}
        prefix = "visual." if tower == "image" else "text."
        idle = {name for name, grad in self.gradients(model).items() if grad is None}
        assert idle == {name for name, _ in model.named_parameters() if name.startswith(prefix)}
        model.train()
        assert model.visual.training == (tower == "text")
        changed = [name for name, tensor in model.named_buffers() if not torch.equal(tensor, before[name])]
        assert bool(changed) == (tower == "text")

    def test_patch_dropout_leaves_patches_out_in_training_only(self) -> None:
        model = built(patch_dropout=0.75)
        seen: list[int] = []
        model.visual.transformer[0].register_forward_pre_hook(lambda _, arguments: seen.append(len(arguments[0])))  # type: ignore[union-attr,index]
        dropped = model.encode_image(images(), torch.arange(4))
        whole = model.eval().encode_image(images())
        assert seen == [4 * (1 + 4), 4 * (1 + 16)]
        assert (dropped - whole).norm() > 1e-3

    @pytest.mark.parametrize("image", [SMALL.image, ResNetConfig(size=32, blocks=(1, 1, 1, 1), width=8)])
    def test_autocast_is_near_fp32(self, image: object) -> None:
        model = built(SMALL.model_copy(update={"image": image})).eval()
        with torch.no_grad():
            exact = model(images(), texts([3, 9, 30, 77]))
            with torch.autocast("cpu", dtype=torch.bfloat16):
                rounded = model(images(), texts([3, 9, 30, 77]))
        for found, wanted in zip(rounded[:2], exact[:2], strict=True):
            assert found.dtype == torch.float32
            assert 0 < (found - wanted).norm(dim=1).max() < 0.05

    def test_later_blocks_learn_faster(self) -> None:
        model = built()
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        scales = {
            names[id(parameter)]: group["lr_scale"]
            for group in parameter_groups(model, OptimConfig(layer_decay=0.5))
            for parameter in group["params"]
        }
        assert scales.keys() == {name for name, _ in model.named_parameters()}
        for tower, before in (("visual", "conv1.weight"), ("text", "token_embedding.weight")):
            blocks = [scales[f"{tower}.transformer.{number}.mlp.c_fc.weight"] for number in range(3)]
            assert [scales[f"{tower}.{before}"], *blocks] == [1 / 16, 1 / 8, 1 / 4, 1 / 2]
        assert scales["visual.proj"] == scales["text.text_projection"] == scales["logit_scale"] == 1.0
        assert {group["lr_scale"] for group in parameter_groups(model, OptimConfig())} == {1.0}
