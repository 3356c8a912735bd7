"""Predicting words and captions against their definitions, caption by caption, in fp64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from raylens.errors import TrainingError
from raylens.objectives import bag_of_words_loss, caption_loss

START, END, VOCAB, T = 0, 1, 30, 9


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.integers(2, VOCAB - 1), max_size=T - 2), min_size=1, max_size=6), st.floats(0.0, 4.0))
def test_each_caption_is_its_distinct_words(captions: list[list[int]], log_scale: float) -> None:
    ids = torch.full((len(captions), T), 29)  # what stands behind the end must not count
    for row, words in enumerate(captions):
        ids[row, : len(words) + 2] = torch.tensor([START, *words, END])
    generator = torch.Generator().manual_seed(len(captions))
    image, words_VD = (
        functional.normalize(torch.randn(rows, 5, generator=generator), dim=1) for rows in (len(captions), VOCAB)
    )
    end = torch.tensor([len(words) + 1 for words in captions])
    found = bag_of_words_loss(image, words_VD, torch.tensor(log_scale), ids, end)
    for row, words in enumerate(captions):
        likely = (torch.tensor(log_scale).double().exp() * words_VD.double() @ image[row].double()).log_softmax(0)
        said = set(words) or {END}
        assert found[row].item() == pytest.approx(
            -sum(likely[word].item() for word in said) / len(said), rel=1e-5, abs=2e-5
        )


def test_a_caption_is_the_sum_over_its_tokens() -> None:
    logits, following = torch.randn(7, VOCAB, dtype=torch.float64), torch.randint(0, VOCAB, (7,))
    row = torch.tensor([0, 0, 2, 2, 2, 0, 3])  # row 1 has no token but its last
    found = caption_loss(logits, following, row, 4)
    wanted = [
        -sum(logits[n].log_softmax(0)[following[n]].item() for n in range(7) if row[n] == one) for one in range(4)
    ]
    assert found.tolist() == pytest.approx(wanted, rel=1e-5)


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(TrainingError, match=r"\(2, 3\).*\(4, 5\)"):
        bag_of_words_loss(torch.ones(2, 3), torch.ones(4, 5), torch.zeros(()), torch.zeros(2, 3), torch.ones(2))
    with pytest.raises(TrainingError, match=r"\(2, 3\).*\(1,\)"):
        caption_loss(torch.ones(2, 3), torch.ones(1), torch.ones(2), 2)
