"""Zero-shot evaluation against naive recomputation, its rules, and the report that shows it."""

import io
import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from raylens.config import ModelConfig, TextTransformerConfig, VisionTransformerConfig
from raylens.errors import ConfigError, DataError
from raylens.evaluate import (
    ClassList,
    ImageFeatures,
    LabelledImage,
    ZeroShotResult,
    clopper_pearson,
    nearest_captions,
    pick_examples,
    render_report,
    write_report,
    zero_shot,
    zero_shot_from_features,
)
from raylens.inputs import Preprocess, Tokenizer
from raylens.models import DualEncoder, ZeroShotClassifier
from raylens.registry import Bundle, Encoder
from raylens.storage import open_store
from tests.helpers.html_pages import check_page, figures_of, marks_of

NAMES = ("cat", "dog", "old house", "red tree", "blue car", "stone", "river")
LIST = ClassList("animals and more", NAMES, ("a photo of a {}.", "{}"))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    config = ModelConfig(
        embed_dim=16,
        image=VisionTransformerConfig(size=16, patch=8, width=32, layers=1, heads=2),
        text=TextTransformerConfig(context=16, vocab=700, width=32, layers=1, heads=2),
    )
    tokenizer, preprocess = Tokenizer.train(["a photo of a cat", "an old house"] * 3, 600), Preprocess(size=16)
    model = DualEncoder(config, end_id=tokenizer.end_id, mean=preprocess.mean, std=preprocess.std)
    return Encoder(Bundle(config, model.state_dict(), tokenizer, preprocess))


def picture(seed: int) -> bytes:
    draw = np.random.default_rng(seed)
    sink = io.BytesIO()
    Image.fromarray(draw.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(sink, format="PNG")
    return sink.getvalue()


def images(count: int) -> list[LabelledImage]:
    return [LabelledImage(f"image-{number}", picture(number), number % len(NAMES)) for number in range(count)]


# Intervals


@given(st.integers(1, 60), st.data(), st.sampled_from([0.8, 0.95, 0.99]))
def test_clopper_pearson_inverts_the_exact_tails(n: int, data: st.DataObject, confidence: float) -> None:
    """Binomial tails at the bounds, summed as exact fractions, are half of what the confidence leaves."""
    k = data.draw(st.integers(0, n))
    low, high = clopper_pearson(k, n, confidence)

    def tail(p: float, ks: range) -> float:
        exact = Fraction(p)
        return float(sum(math.comb(n, i) * exact**i * (1 - exact) ** (n - i) for i in ks))

    half = (1 - confidence) / 2
    assert low == 0.0 if k == 0 else tail(low, range(k, n + 1)) == pytest.approx(half, rel=1e-8)
    assert high == 1.0 if k == n else tail(high, range(k + 1)) == pytest.approx(half, rel=1e-8)
    assert low <= k / n <= high


@pytest.mark.parametrize(
    ("k", "n", "confidence"), [(0, 0, 0.95), (-1, 5, 0.95), (6, 5, 0.95), (1, 5, 0.0), (1, 5, 1.0)]
)
def test_an_impossible_interval_is_refused(k: int, n: int, confidence: float) -> None:
    with pytest.raises(ConfigError):
        clopper_pearson(k, n, confidence)


# Zero-shot


def test_zero_shot_equals_a_naive_computation(encoder: Encoder) -> None:
    items = images(40)
    result = zero_shot(encoder, LIST.with_images(iter(items)), batch=7)
    classes = []
    for name in NAMES:
        vectors = [encoder.encode_texts([template.replace("{}", name)])[0].double() for template in LIST.templates]
        mean = torch.stack(vectors).mean(dim=0)
        classes.append(mean / mean.norm())
    right, confusion, top5 = 0, np.zeros((7, 7), dtype=int), 0
    for item in items:
        scores = torch.stack(classes) @ encoder.encode_images([item.image])[0].double()
        order = scores.argsort(descending=True).tolist()
        right += order[0] == item.label
        top5 += item.label in order[:5]
        confusion[item.label, order[0]] += 1
    assert result.correct == right
    assert result.accuracy == right / 40
    assert result.top5 == pytest.approx(top5 / 40)
    assert np.array_equal(result.confusion_CC, confusion)
    assert result.interval == clopper_pearson(right, 40)
    assert result.n == 40
    rows = result.table.to_pylist()
    assert [row["uid"] for row in rows] == [item.uid for item in items]
    assert sum(row["prediction"] == row["label"] for row in rows) == right


def decided(features: list[list[float]], classes: list[list[float]], labels: list[int]) -> ZeroShotResult:
    count = len(classes)
    known = ClassList("made", tuple(f"class {number}" for number in range(count)), ("{}",))
    vectors = np.array(features, dtype=np.float32)
    made = ImageFeatures(tuple(f"i{n}" for n in range(len(labels))), np.array(labels), vectors, ())
    return zero_shot_from_features(made, ZeroShotClassifier(torch.tensor(classes), 100.0), known)


@pytest.mark.parametrize("label", [0, 1, 2])
def test_a_tie_never_counts_as_right(label: int) -> None:
    """A model that tells nothing apart scores 0, wherever the true class stands in the list."""
    result = decided([[1.0, 0.0]] * 5, [[1.0, 0.0]] * 3, [label] * 5)
    assert result.accuracy == 0.0
    assert result.confusion_CC.trace() == 0


def test_not_a_number_is_wrong_and_said() -> None:
    result = decided([[float("nan"), 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]], [0, 0])
    assert (result.correct, result.undecided, result.n) == (1, 1, 2)
    json.loads(result.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert result.table["prediction"].to_pylist() == [None, 0]


@given(st.integers(2, 9), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_order_of_the_classes_does_not_matter(count: int, n: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    classes = draw.integers(-2, 3, (count, 3)).astype(float) + 1e-3
    features = draw.integers(-2, 3, (n, 3)).astype(float)
    labels = draw.integers(0, count, n)
    turn = draw.permutation(count)
    place = np.argsort(turn)
    one = decided(features.tolist(), classes.tolist(), labels.tolist())
    other = decided(features.tolist(), classes[turn].tolist(), place[labels].tolist())
    assert one.correct == other.correct
    assert one.rank_N.tolist() == other.rank_N.tolist()


def test_unreadable_images_are_told_and_left_out(encoder: Encoder) -> None:
    items = [*images(6), LabelledImage("broken", b"no picture", 0)]
    result = zero_shot(encoder, LIST.with_images(items))
    assert result.n == 6
    assert [uid for uid, _ in result.unreadable] == ["broken"]
    with pytest.raises(DataError):
        zero_shot(encoder, LIST.with_images([LabelledImage("broken", b"no picture", 0)]))


@pytest.mark.parametrize("label", [-1, 7])
def test_a_label_without_a_class_is_named(encoder: Encoder, label: int) -> None:
    with pytest.raises(DataError, match=f"'odd' has label {label}: animals and more has classes 0 to 6"):
        zero_shot(encoder, LIST.with_images([LabelledImage("odd", picture(1), label)]))


@pytest.mark.parametrize("label", [None, "1", 1.0, True, -1, 7])
def test_a_label_is_the_index_of_a_class(label: object) -> None:
    classes = ClassList("digits", tuple("abcdefg"), ("{}",))
    assert [classes.check_label(index, "x") for index in range(7)] == list(range(7))
    with pytest.raises(DataError, match=f"^x has label {label!r}: digits has classes 0 to 6"):
        classes.check_label(label, "x")


def test_a_uid_that_stands_twice_and_no_images_are_refused(encoder: Encoder) -> None:
    with pytest.raises(DataError, match="image-0"):
        zero_shot(encoder, LIST.with_images([*images(2), *images(1)]))
    with pytest.raises(DataError):
        zero_shot(encoder, LIST.with_images([]))


def test_prompts_over_the_context_are_told(encoder: Encoder) -> None:
    long = ClassList("long", ("cat", "dog"), ("word " * 40 + "{}",))
    result = zero_shot(encoder, long.with_images([LabelledImage("a", picture(1), 0)]))
    assert any("truncated" in complaint for complaint in result.lint)
    assert any("same token ids" in complaint for complaint in result.lint)


def test_class_list_round_trip_and_mistakes(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    LIST.write(store)
    assert ClassList.read(store) == LIST
    for text in ("{", "[]", '{"name": "x"}', '{"name": "x", "classes": ["a", "a"], "templates": ["{}"]}'):
        store.write("classes.json", text.encode())
        with pytest.raises(ConfigError, match=r"classes\.json"):
            ClassList.read(store)


def test_nearest_captions_equal_a_naive_search(encoder: Encoder) -> None:
    captions = ["a cat", "an old house", "a red tree", "a cat", "a river"]
    found = nearest_captions(encoder, images(3), captions, k=2)
    texts = list(dict.fromkeys(captions))
    for item, one in zip(images(3), found, strict=True):
        scores = (encoder.encode_texts(texts).double() @ encoder.encode_images([item.image])[0].double()).tolist()
        best = sorted(range(len(texts)), key=lambda at: -scores[at])[:2]
        assert [caption for caption, _ in one.captions] == [texts[at] for at in best]


# The report


CURVE = [
    {"step": 10 * n, "loss": 5.0 / n, "lr": 1e-3 / n, "logit_scale": 14.0 + n, "samples_seen": 1280 * n}
    for n in range(1, 6)
]


def page_of(encoder: Encoder, names: tuple[str, ...] = NAMES) -> tuple[ZeroShotResult, str]:
    items = images(30)
    classes = ClassList("set", names, ("a photo of a {}.",))
    result = zero_shot(encoder, classes.with_images(items))
    chosen = set(pick_examples(result))
    nearest = nearest_captions(encoder, [item for item in items if item.uid in chosen], ["a cat", "<b>bold</b>"])
    facts = {"Run": "here & now", "Model": "tiny@1"}
    page = render_report(title="tiny", zero_shot=result, curve=CURVE, nearest=nearest, facts=facts, global_batch=128)
    return result, page


def test_the_report_shows_what_was_found_and_loads_nothing(encoder: Encoder) -> None:
    result, page = page_of(encoder)
    parsed = check_page(page)
    text = " ".join(parsed.words.split())
    assert f"{result.accuracy:.1%}" in text
    assert f"{result.interval.low:.1%}" in text
    assert "here & now" in text
    assert "<b>bold</b>" in text, "escaped, so that it is text and no markup"
    assert all(name in text for name in NAMES)
    curves, matrix = figures_of(page)[:3], figures_of(page)[3]
    assert len(curves) == 3
    assert sum(title.startswith("true: ") for title in marks_of(matrix)) == np.count_nonzero(result.confusion_CC)
    assert page == page_of(encoder)[1], "equal input gives equal bytes"


def test_the_report_disarms_what_it_is_given(encoder: Encoder) -> None:
    evil = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', *NAMES[2:])
    assert "<script>alert(1)</script>" in check_page(page_of(encoder, evil)[1]).words


def test_the_report_does_without_training_and_images(encoder: Encoder, tmp_path: Path) -> None:
    result, _ = page_of(encoder)
    store = open_store(tmp_path)
    write_report(store, title="bare", zero_shot=result, curve=[], nearest=[], facts={})
    assert f"{result.accuracy:.1%}" in store.read_text("report.html")
