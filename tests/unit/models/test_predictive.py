"""The towers as predictors: of words, and of captions."""

import math
from typing import Any

import pytest
import torch
from torch.nn import functional

from raylens.config import BagOfWordsConfig, ModelConfig, TextTransformerConfig, TowersConfig, VisionTransformerConfig
from raylens.errors import BundleError
from raylens.inputs import Preprocess, Tokenizer
from raylens.models import DualEncoder, caption_scores
from raylens.models.training import prepare_towers
from raylens.objectives import caption_loss
from raylens.registry import Bundle, Encoder, Lineage

END, T, VOCAB = 1, 10, 600


def model_of(text: Any = None) -> DualEncoder:
    torch.manual_seed(0)
    config = ModelConfig(
        embed_dim=8,
        image=VisionTransformerConfig(size=16, patch=8, width=16, layers=1, heads=2),
        text=text or TextTransformerConfig(context=T, vocab=VOCAB, width=16, layers=2, heads=2),
    )
    return DualEncoder(config, end_id=END, mean=(0.5,) * 3, std=(0.5,) * 3)


def texts(*lengths: int) -> torch.Tensor:
    ids = torch.randint(2, 500, (len(lengths), T), generator=torch.Generator().manual_seed(1))
    for row, length in enumerate(lengths):
        ids[row, length - 1 :] = END
    return ids


def pixels(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (count, 16, 16, 3), dtype=torch.uint8, generator=generator)


def test_every_token_but_the_first_is_predicted_once() -> None:
    ids = texts(4, 10, 2)
    logits, following, row = model_of()(pixels(3), ids, None, "caption")
    assert logits.shape == (3 + 9 + 1, VOCAB)
    assert torch.bincount(row).tolist() == [3, 9, 1]
    for one, length in enumerate((4, 10, 2)):
        assert following[row == one].tolist() == ids[one, 1:length].tolist()


def test_a_prediction_sees_the_image_and_what_came_before_alone() -> None:
    model, ids = model_of().eval(), texts(10)
    base = model(pixels(1), ids, None, "caption").logits_NV
    later = ids.clone()
    later[0, 6] = 77
    changed = model(pixels(1), later, None, "caption").logits_NV
    assert torch.equal(changed[:6], base[:6])
    assert (changed[6:] - base[6:]).abs().amax(1).min() > 1e-6
    other = model(255 - pixels(1), ids, None, "caption").logits_NV
    assert (other - base).abs().amax(1).min() > 1e-6


def test_scores_are_the_likelihood_of_each_classs_prompts() -> None:
    model, prompts = model_of().eval(), texts(5, 3, 9)
    image_BD = model.encode_image(pixels(7))
    found = caption_scores(model, image_BD, prompts, [2, 1], batch=3)
    for image in range(7):
        likely = []
        for prompt in range(3):
            predicted = model(pixels(7)[image : image + 1], prompts[prompt : prompt + 1], None, "caption")
            loss_b = caption_loss(predicted.logits_NV, predicted.next_N, predicted.row_N, 1)
            likely.append(-loss_b.double()[0])
        wanted = [torch.stack(likely[:2]).logsumexp(0) - math.log(2), likely[2]]
        assert torch.allclose(found[image].double(), torch.stack(wanted), rtol=1e-5)


def test_words_are_texts_of_one_token() -> None:
    model = model_of(BagOfWordsConfig(context=T, vocab=VOCAB, width=16)).eval()
    image_BD, word_VD, log_scale, end_B = model(pixels(2), texts(4, 6), None, "words")
    assert torch.equal(image_BD, model.encode_image(pixels(2)))
    assert end_B.tolist() == [3, 5]
    assert log_scale.shape == ()
    text: Any = model.text
    alone = text.ln_final(text.token_embedding.weight[42]) @ text.text_projection
    assert torch.allclose(word_VD[42], functional.normalize(alone, dim=0), atol=1e-6)
    assert torch.allclose(word_VD.norm(dim=1), torch.ones(VOCAB))


def test_dropout_hangs_on_the_samples_key_and_not_on_its_batch() -> None:
    model = prepare_towers(model_of(), TowersConfig(dropout=0.3, patch_dropout=0.5))
    keys, ids = torch.tensor([5, 99, -7]), texts(4, 10, 6)
    together = model(pixels(3), ids, keys)
    for one in range(3):
        rows = slice(one, one + 1)
        alone = model(pixels(3)[rows], ids[rows], keys[rows])
        assert torch.allclose(alone.image_BD, together.image_BD[rows], atol=1e-6)
        assert torch.allclose(alone.text_BD, together.text_BD[rows], atol=1e-6)
    other = model(pixels(3), ids, keys + 1)
    assert (other.image_BD - together.image_BD).norm(dim=1).min() > 1e-3
    assert (other.text_BD - together.text_BD).norm(dim=1).min() > 1e-3
    exact = model.eval()(pixels(3), ids, keys)
    assert (exact.text_BD - together.text_BD).norm(dim=1).min() > 1e-3


def test_a_model_that_predicts_captions_embeds_no_texts() -> None:
    tokenizer = Tokenizer.train(["a cat", "a dog"] * 20, VOCAB)
    model = model_of()
    bundle = Bundle(model.config, model.state_dict(), tokenizer, Preprocess(size=16), Lineage(objective="caption"))
    encoder = Encoder(bundle)
    assert len(encoder.encode_pixels(pixels(2).numpy())) == 2
    with pytest.raises(BundleError, match="predicts captions and embeds no text"):
        encoder.encode_texts(["a cat"])
