"""Recall both ways, against counting by hand."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from raylens.evaluate import retrieval
from raylens.evaluate.retrieval import recalls

FLOATS = NDArray[np.float64]


def unit(rows_ND: FLOATS) -> FLOATS:
    unit_ND: FLOATS = rows_ND / np.linalg.norm(rows_ND, axis=1, keepdims=True)
    return unit_ND


def by_hand(image_ND: FLOATS, text_ND: FLOATS, text_N: NDArray[np.int64], k: int) -> tuple[float, float]:
    """Each query by itself: among the distinct texts, or among the images, with ties against it."""
    texts = {int(number): text_ND[at] for at, number in reversed(list(enumerate(text_N)))}
    images = 0
    for at, number in enumerate(text_N):
        own = image_ND[at] @ texts[int(number)]
        images += sum(image_ND[at] @ other >= own - 1e-6 for key, other in texts.items() if key != number) < k
    found = 0
    for number, text in texts.items():
        own = max(image_ND[at] @ text for at in np.flatnonzero(text_N == number))
        found += sum(image_ND[at] @ text >= own - 1e-6 for at in np.flatnonzero(text_N != number)) < k
    return images / len(image_ND), found / len(texts)


def found_by(*arguments: Any) -> dict[str, float]:
    metrics = recalls(*arguments)
    assert {metric.goal for metric in metrics} == {"max"}
    return {metric.name: metric.value for metric in metrics}


@given(st.integers(2, 30), st.integers(1, 6), st.integers(1, 12), st.integers(0, 2**31), st.sampled_from([1, 3, 1024]))
def test_counting_by_hand_agrees(pairs: int, width: int, texts: int, seed: int, chunk: int) -> None:
    draw = np.random.default_rng(seed)
    text_N = draw.integers(0, texts, pairs)
    vectors = unit(draw.normal(size=(texts, width)).round(1) + 1e-3)  # rounded, so that there are ties
    image_ND = unit(draw.normal(size=(pairs, width)).round(1) + 1e-3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "CHUNK", chunk)
        found = found_by(image_ND, vectors[text_N], text_N, (1, 2))
    for k in (1, 2):
        assert (found[f"image_to_text_recall_{k}"], found[f"text_to_image_recall_{k}"]) == pytest.approx(
            by_hand(image_ND, vectors[text_N], text_N, k)
        )


def test_a_model_that_tells_nothing_apart_finds_nothing() -> None:
    same_ND = np.ones((20, 4)) / 2
    assert set(found_by(same_ND, same_ND, np.arange(20)).values()) == {0.0}


def test_what_is_not_finite_is_nowhere_found() -> None:
    image_ND, text_N = np.eye(12), np.arange(12)
    broken_ND = image_ND.copy()
    broken_ND[3] = np.nan
    assert found_by(broken_ND, image_ND, text_N)["image_to_text_recall_10"] == 11 / 12
    assert found_by(image_ND, broken_ND, text_N)["text_to_image_recall_10"] == 11 / 12
    assert found_by(image_ND, image_ND, text_N)["text_to_image_recall_1"] == 1.0
