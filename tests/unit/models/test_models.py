"""The dual encoder against a second implementation of the same formulas, in numpy and fp64.

Shapes: B batch, S image size, T tokens, P patches, W width, H heads, K width of a head, D embedding, C classes.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from raylens.config import ModelConfig, TextTransformerConfig, VisionTransformerConfig
from raylens.config.model import Activation
from raylens.models import DualEncoder, ZeroShotClassifier
from raylens.models.text import TextTransformer
from raylens.models.transformer import LayerNorm, QuickGELU, activation_module

Array = NDArray[np.float64]
MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
END = 299


def small(activation: Activation = "quick_gelu") -> ModelConfig:
    return ModelConfig(
        embed_dim=12,
        activation=activation,
        image=VisionTransformerConfig(size=12, patch=4, width=24, layers=3, heads=4),
        text=TextTransformerConfig(context=10, vocab=600, width=16, layers=2, heads=2),
    )


def built(config: ModelConfig, seed: int = 0) -> DualEncoder:
    """A model of which every number is random: a forgotten bias or gain changes its result."""
    torch.manual_seed(seed)
    model = DualEncoder(config, end_id=END, mean=MEAN, std=STD).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3)
    return model


def images(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 12, 12, 3), dtype=np.uint8)


def texts(ends: Sequence[int], tokens: int = 10, seed: int = 0) -> NDArray[np.int32]:
    """Rows of random ids with the end token where it is asked for, and zeros behind it."""
    ids = np.random.default_rng(seed).integers(1, END, (len(ends), tokens), dtype=np.int32)
    for row, end in zip(ids, ends, strict=True):
        row[end:] = 0
        row[end] = END
    return ids


class Reference:
    """Pre-norm towers written down from the paper and the facts of OpenAI's checkpoints."""

    def __init__(self, model: DualEncoder) -> None:
        self.config = model.config
        self.state = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}

    def norm(self, x: Array, name: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return np.asarray(scaled * self.state[f"{name}.weight"] + self.state[f"{name}.bias"])

    def linear(self, x: Array, name: str) -> Array:
        return np.asarray(x @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"])

    def attention(self, x_TW: Array, name: str, heads: int, causal: bool) -> Array:
        """One sequence, one head at a time."""
        tokens, width = x_TW.shape
        qkv = x_TW @ self.state[f"{name}.in_proj_weight"].T + self.state[f"{name}.in_proj_bias"]
        out = np.empty_like(x_TW)
        for head in range(heads):
            at = slice(head * width // heads, (head + 1) * width // heads)
            q_TK, k_TK, v_TK = (part[:, at] for part in np.split(qkv, 3, axis=1))
            scores_TT = q_TK @ k_TK.T / math.sqrt(width / heads)
            if causal:
                scores_TT = np.where(np.tri(tokens, dtype=bool), scores_TT, -np.inf)
            shares_TT = np.exp(scores_TT - scores_TT.max(-1, keepdims=True))
            out[:, at] = shares_TT / shares_TT.sum(-1, keepdims=True) @ v_TK
        return self.linear(out, f"{name}.out_proj")

    def activation(self, x: Array) -> Array:
        if self.config.activation == "quick_gelu":
            return np.asarray(x / (1 + np.exp(-1.702 * x)))
        return np.asarray(0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))))

    def blocks(self, x_TW: Array, tower: str, layers: int, heads: int, causal: bool) -> Array:
        for layer in range(layers):
            name = f"{tower}.transformer.{layer}"
            x_TW = x_TW + self.attention(self.norm(x_TW, f"{name}.ln_1"), f"{name}.attn", heads, causal)
            hidden = self.activation(self.linear(self.norm(x_TW, f"{name}.ln_2"), f"{name}.mlp.c_fc"))
            x_TW = x_TW + self.linear(hidden, f"{name}.mlp.c_proj")
        return x_TW

    def image(self, pixels_SSC: NDArray[np.uint8]) -> Array:
        tower = self.config.image
        assert isinstance(tower, VisionTransformerConfig)
        patch = tower.patch
        x = (pixels_SSC / 255.0 - np.array(MEAN)) / np.array(STD)
        kernel = self.state["visual.conv1.weight"]  # [W, 3, patch, patch], no bias
        side = range(0, tower.size, patch)
        squares = [x[top : top + patch, left : left + patch] for top in side for left in side]
        x_PW = np.stack([np.einsum("yxc,wcyx->w", square, kernel) for square in squares])
        x_TW = np.concatenate([self.state["visual.class_embedding"][None], x_PW])
        x_TW = self.norm(x_TW + self.state["visual.positional_embedding"], "visual.ln_pre")
        x_TW = self.blocks(x_TW, "visual", tower.layers, tower.heads, causal=False)
        return unit(self.norm(x_TW[0], "visual.ln_post") @ self.state["visual.proj"])

    def text(self, ids_T: NDArray[np.int32]) -> Array:
        """No row is cut: padding takes part, as in the reference implementation."""
        tower = self.config.text
        assert isinstance(tower, TextTransformerConfig)
        x_TW = self.state["text.token_embedding.weight"][ids_T] + self.state["text.positional_embedding"]
        x_TW = self.blocks(x_TW, "text", tower.layers, tower.heads, causal=True)
        end = int(np.flatnonzero(ids_T == END)[0])
        return unit(self.norm(x_TW[end], "text.ln_final") @ self.state["text.text_projection"])


def unit(x: Array) -> Array:
    return np.asarray(x / np.sqrt((x**2).sum()))


def error(found: Tensor, expected: Sequence[Array]) -> float:
    """The largest distance between two unit vectors of the same row: relative, as their length is 1."""
    return float(np.linalg.norm(found.double().numpy() - np.stack(expected), axis=1).max())


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("seed", range(3))
def test_both_towers_are_the_formulas(activation: Activation, seed: int) -> None:
    model = built(small(activation), seed)
    reference = Reference(model)
    pixels, ids = images(4, seed), texts([9, 1, 4, 6], seed=seed)
    with torch.no_grad():
        image_BD, text_BD, log_scale, _ = model(torch.from_numpy(pixels), torch.from_numpy(ids))
    assert error(image_BD, [reference.image(row) for row in pixels]) < 1e-5
    assert error(text_BD, [reference.text(row) for row in ids]) < 1e-5
    assert log_scale.shape == ()
    assert log_scale == model.logit_scale[0]


def test_the_activations_differ_and_are_what_they_are_called() -> None:
    x = torch.linspace(-6, 6, 101, dtype=torch.float64)
    quick, exact = activation_module("quick_gelu")(x), activation_module("gelu")(x)
    expected = torch.tensor([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(exact, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(quick, x / (1 + torch.exp(-1.702 * x)), rtol=1e-12, atol=1e-12)
    assert (quick - exact).abs().max() > 0.01
    assert isinstance(activation_module("quick_gelu"), QuickGELU)


@pytest.mark.parametrize("count", [1, 5])
def test_embeddings_are_unit_vectors_in_fp32(count: int) -> None:
    model = built(small())
    with torch.no_grad():
        image_BD, text_BD, *_ = model(torch.from_numpy(images(count)), torch.from_numpy(texts([3] * count)))
    for out in (image_BD, text_BD):
        assert out.shape == (count, 12)
        assert out.dtype == torch.float32
        torch.testing.assert_close(out.norm(dim=1), torch.ones(count), rtol=1e-6, atol=1e-6)


@settings(max_examples=25)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 100))
def test_padding_changes_nothing(ends: list[int], seed: int) -> None:
    """The tower cuts what lies behind the longest text; with all of it, or without any, the result is the same."""
    model, ids = built(small()), torch.from_numpy(texts(ends, seed=seed))
    with torch.no_grad():
        short = model.encode_text(ids)
        whole = torch.nn.functional.normalize(model.text(ids.long(), torch.tensor(ends)), dim=-1)
        torch.testing.assert_close(short, whole, rtol=0, atol=2e-6)
        for row, end in enumerate(ends):
            alone = model.encode_text(ids[row : row + 1, : end + 1])
            torch.testing.assert_close(alone[0], short[row], rtol=0, atol=2e-6)


@settings(max_examples=25)
@given(st.integers(1, 8), st.integers(0, 100))
def test_no_token_sees_what_follows(end: int, seed: int) -> None:
    """Bit for bit: a masked score becomes a share of exactly zero."""
    model, ids = built(small()), torch.from_numpy(texts([end], seed=seed)).long()
    other = ids.clone()
    other[0, end + 1 :] = torch.randint(1, END, (9 - end,), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        assert torch.equal(model.text(ids, torch.tensor([end])), model.text(other, torch.tensor([end])))
        assert not torch.equal(model.text(ids, torch.tensor([9])), model.text(other, torch.tensor([9])))


def test_every_token_up_to_the_end_counts() -> None:
    model, ids = built(small()), texts([6])
    with torch.no_grad():
        base = model.encode_text(torch.from_numpy(ids))
        for at in range(6):
            other = ids.copy()
            other[0, at] = other[0, at] % 200 + 1
            assert (model.encode_text(torch.from_numpy(other)) - base).norm() > 1e-4


def test_padding_gets_no_gradient() -> None:
    model, ids = built(small()), texts([3, 6])
    model.encode_text(torch.from_numpy(ids)).sum().backward()
    assert isinstance(model.text, TextTransformer)
    embedding, positions = model.text.token_embedding.weight.grad, model.text.positional_embedding.grad
    assert embedding is not None
    assert positions is not None
    assert (embedding[0] == 0).all()  # id 0 stands in padding alone
    assert (positions[7:] == 0).all()
    assert (positions[:7].abs().sum(dim=1) > 0).all()


def test_the_first_end_token_counts() -> None:
    model, ids = built(small()), texts([2])
    other = ids.copy()
    other[0, 5] = END
    with torch.no_grad():
        found = model.encode_text(torch.from_numpy(np.concatenate([ids, other])))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=2e-6)


def test_every_parameter_learns() -> None:
    model = built(small())
    image_BD, text_BD, log_scale, _ = model(torch.from_numpy(images(3)), torch.from_numpy(texts([9, 9, 9])))
    (log_scale.exp() * image_BD @ text_BD.T).log_softmax(dim=1).diagonal().sum().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []


def test_constants_are_not_weights() -> None:
    model = DualEncoder(small(), end_id=END, mean=MEAN, std=STD)
    names = set(model.state_dict())
    assert list(model.buffers()) == []
    assert model.bfloat16().mean == tuple(MEAN), "a cast must not change the pixels that the tower sees"
    assert "visual.conv1.bias" not in names
    assert "logit_scale" in names


WIDE = ModelConfig(
    embed_dim=192,
    image=VisionTransformerConfig(size=64, patch=8, width=192, layers=3, heads=3),
    text=TextTransformerConfig(context=64, vocab=1000, width=128, layers=3, heads=2),
)


@pytest.fixture(scope="module")
def fresh() -> dict[str, Tensor]:
    """The weights of a model as it is before training."""
    torch.manual_seed(20210103)
    return dict(DualEncoder(WIDE, end_id=END, mean=MEAN, std=STD, temperature=0.05).state_dict())


def close_to_normal(weight: Tensor, std: float) -> None:
    """Mean, spread and tails of N(0, std), each within five of its own standard errors."""
    count = weight.numel()
    assert abs(float(weight.mean())) < 5 * std / math.sqrt(count)
    assert float(weight.std()) == pytest.approx(std, rel=5 / math.sqrt(2 * count))
    if count > 1000:
        outside = float((weight.abs() > 2 * std).float().mean())  # 4.55% of a normal, none of a uniform distribution
        assert outside == pytest.approx(0.0455, abs=5 * math.sqrt(0.0455 / count))


def close_to_uniform(weight: Tensor, bound: float) -> None:
    assert float(weight.abs().max()) <= bound
    assert float(weight.std()) == pytest.approx(bound / math.sqrt(3), rel=5 / math.sqrt(2 * weight.numel()))


def test_initial_text_tower(fresh: dict[str, Tensor]) -> None:
    width, layers = 128, 3
    close_to_normal(fresh["text.token_embedding.weight"], 0.02)
    close_to_normal(fresh["text.positional_embedding"], 0.01)
    close_to_normal(fresh["text.text_projection"], width**-0.5)
    for layer in range(layers):
        block = f"text.transformer.{layer}"
        close_to_normal(fresh[f"{block}.attn.in_proj_weight"], width**-0.5)
        close_to_normal(fresh[f"{block}.attn.out_proj.weight"], width**-0.5 * (2 * layers) ** -0.5)
        close_to_normal(fresh[f"{block}.mlp.c_fc.weight"], (2 * width) ** -0.5)
        close_to_normal(fresh[f"{block}.mlp.c_proj.weight"], width**-0.5 * (2 * layers) ** -0.5)


def test_initial_image_tower(fresh: dict[str, Tensor]) -> None:
    """The blocks keep what torch gives to the same modules of its own."""
    width = 192
    close_to_normal(fresh["visual.class_embedding"], width**-0.5)
    close_to_normal(fresh["visual.positional_embedding"], width**-0.5)
    close_to_normal(fresh["visual.proj"], width**-0.5)
    close_to_uniform(fresh["visual.conv1.weight"], (3 * 8 * 8) ** -0.5)
    for layer in range(3):
        block = f"visual.transformer.{layer}"
        close_to_uniform(fresh[f"{block}.attn.in_proj_weight"], math.sqrt(6 / (width + 3 * width)))
        close_to_uniform(fresh[f"{block}.attn.out_proj.weight"], width**-0.5)
        close_to_uniform(fresh[f"{block}.mlp.c_fc.weight"], width**-0.5)
        close_to_uniform(fresh[f"{block}.mlp.c_proj.weight"], (4 * width) ** -0.5)


def test_initial_gains_biases_and_scale(fresh: dict[str, Tensor]) -> None:
    norms = [name.rpartition(".")[0] for name in fresh if ".ln_" in name and name.endswith(".weight")]
    assert len(norms) == 2 * 3 + 2 * 3 + 3
    assert all((fresh[f"{name}.weight"] == 1).all() and (fresh[f"{name}.bias"] == 0).all() for name in norms)
    zeros = [name for name in fresh if name.endswith(("in_proj_bias", "out_proj.bias"))]
    assert len(zeros) == 2 * 2 * 3
    assert all((fresh[name] == 0).all() for name in zeros)
    assert float(fresh["logit_scale"].exp()) == pytest.approx(1 / 0.05, rel=1e-6)


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_layer_norm_keeps_its_statistics_in_half_precision(offset: float) -> None:
    """The result is the exact one, rounded once: with a mean far from zero, sums in bf16 would lose it."""
    generator = torch.Generator().manual_seed(3)
    x = (torch.randn(16, 96, generator=generator, dtype=torch.float64) * 3 + offset).to(torch.bfloat16)
    layer = LayerNorm(96)
    with torch.no_grad():
        layer.weight.normal_(1.0, 0.1)
        layer.bias.normal_(0.0, 0.1)
    layer = layer.to(torch.bfloat16)
    wide = x.double()
    exact = (wide - wide.mean(-1, keepdim=True)) / (wide.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    exact = exact * layer.weight.double() + layer.bias.double()
    found = layer(x)
    assert found.dtype == torch.bfloat16
    assert ((found.double() - exact).abs() <= 2**-8 * exact.abs() + 1e-5).all()


def test_half_precision_towers_stay_close() -> None:
    model, pixels, ids = built(small()), torch.from_numpy(images(4)), torch.from_numpy(texts([9, 3, 5, 1]))
    with torch.no_grad():
        wide = model.encode_image(pixels), model.encode_text(ids)
        half = model.to(torch.bfloat16)
        narrow = half.encode_image(pixels), half.encode_text(ids)
    assert half.dtype == torch.bfloat16
    for exact, rounded in zip(wide, narrow, strict=True):
        assert rounded.dtype == torch.float32
        assert ((exact * rounded).sum(dim=1) > 0.99).all()


def table(seed: int, width: int) -> Callable[[Sequence[str]], Tensor]:
    """Texts to unit vectors that depend on the text alone."""

    def encode(prompts: Sequence[str]) -> Tensor:
        rows = [unit(np.random.default_rng([seed, *prompt.encode()]).normal(size=width)) for prompt in prompts]
        return torch.from_numpy(np.stack(rows)).float()

    return encode


@given(
    st.lists(st.lists(st.text(max_size=5), min_size=1, max_size=4), min_size=1, max_size=5),
    st.integers(1, 6),
    st.floats(1.0, 100.0),
    st.integers(0, 1000),
)
def test_the_zero_shot_classifier_is_the_formula(prompts: list[list[str]], batch: int, scale: float, seed: int) -> None:
    classifier = ZeroShotClassifier.build(prompts, table(seed, 16), scale)
    rows = [table(seed, 16)(of_class).double().numpy().mean(axis=0) for of_class in prompts]
    class_CD = np.stack([unit(row) for row in rows])
    image_BD = np.random.default_rng(seed).normal(size=(batch, 16))
    image_BD /= np.linalg.norm(image_BD, axis=1, keepdims=True)
    logits = scale * image_BD @ class_CD.T
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    found = torch.from_numpy(image_BD).float()
    np.testing.assert_allclose(classifier.logits(found), logits, rtol=0, atol=1e-5 * scale)
    np.testing.assert_allclose(
        classifier.probabilities(found), shares / shares.sum(axis=1, keepdims=True), rtol=0, atol=1e-5 * scale
    )
