"""The tokenizer: which ids a text has, and that nothing but the tokenizer ends a text."""

import json

import numpy as np
import pytest
from ftfy import fix_text
from hypothesis import example, given
from hypothesis import strategies as st

from raylens.errors import BundleError, ConfigError, InputError
from raylens.inputs import Tokenizer
from raylens.inputs.clean import clean
from raylens.inputs.tokenizer import PAD_ID
from raylens.inputs.vocabulary import END, START

CORPUS = [f"a photo of a {colour} {thing}" for colour in ("red", "blue", "small") for thing in ("cat", "dog", "house")]
TOKENIZER = Tokenizer.train([*CORPUS, f"{END} {END} {START}"] * 3, 576)
ANY_TEXT = st.text(st.characters(blacklist_categories=["Cs"]))


def ids_of(text: str, context: int = 400) -> tuple[list[int], bool]:
    """The row of one text, and whether it was truncated."""
    ids, truncated = TOKENIZER([text], context)
    return ids[0].tolist(), bool(truncated[0])


def squeezed(text: str) -> str:
    return "".join(text.split())


# Letters of many scripts, signs and emoji, as they stand in captions.
PRINTABLE = st.text(
    st.characters(categories=["Ll", "Lu", "Nd", "Po", "Sc", "So", "Zs"], max_codepoint=0x1FAFF), max_size=30
)


@given(PRINTABLE)
def test_ids_give_the_cleaned_text_back(text: str) -> None:
    """But for the spaces, which do not count: words and signs are told apart whether one stands there or not."""
    row, _ = ids_of(text)
    assert squeezed(TOKENIZER.decode(row)) == squeezed(clean(text))


@given(PRINTABLE)
@example("\u00c2\u0152")
def test_case_and_white_space_mean_nothing(text: str) -> None:
    if text.isascii():
        assert ids_of(text) == ids_of(text.upper()) or "&" in text  # &amp; is an entity, &AMP too, &Amp is none
    spaced = f"  {text}\n\t"
    # What looks like UTF-8 read as Latin letters is mended first, and whether it looks so depends on what surrounds it.
    if fix_text(text) == text and fix_text(spaced) == spaced:
        assert ids_of(text) == ids_of(spaced)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("cafe\u0301", "café"),
        ("Fish &amp;amp; Chips &lt;3", "fish & chips <3"),
        ("caf\u00c3\u00a9", "café"),
        ("\u201cquoted\u201d  \u2018so\u2019", "\"quoted\" 'so'"),
        ("\ufb01ne\u0000\u001f", "fine"),
        ("A\u0345B", "a b"),
        ("", ""),
    ],
)
def test_texts_are_mended_first(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned
    assert ids_of(text) == ids_of(cleaned)


def test_words_end_with_a_mark_and_are_never_crossed() -> None:
    assert ids_of("photo of")[0] == ids_of("photo  OF")[0] != ids_of("photoof")[0]
    assert TOKENIZER.decode(ids_of("it's a cat, 12 dogs!?")[0]) == "it 's a cat , 1 2 dogs !?"


@given(ANY_TEXT, st.integers(3, 40))
def test_every_row_has_one_start_one_end_and_known_ids(text: str, context: int) -> None:
    row, truncated = ids_of(text, context)
    assert len(row) == context
    assert row[0] == TOKENIZER.start_id
    end = row.index(TOKENIZER.end_id)
    assert row.count(TOKENIZER.end_id) == 1
    assert TOKENIZER.start_id not in row[1:end]
    assert set(row[end + 1 :]) <= {PAD_ID}
    assert all(0 <= index < TOKENIZER.vocab_size for index in row)
    assert not truncated or end == context - 1


@given(ANY_TEXT, st.integers(3, 20))
def test_truncation_is_flagged_exactly_when_something_was_cut(text: str, context: int) -> None:
    whole, _ = ids_of(text, 20_000)
    length = whole.index(TOKENIZER.end_id) + 1
    row, truncated = ids_of(text, context)
    assert truncated == (length > context)
    assert row[: min(length, context) - 1] == whole[: min(length, context) - 1]


@pytest.mark.parametrize("text", ["", " ", "\n\t ", "\u3000"])
def test_empty_texts_have_their_two_marks(text: str) -> None:
    assert ids_of(text, 5) == ([TOKENIZER.start_id, TOKENIZER.end_id, PAD_ID, PAD_ID, PAD_ID], False)


@pytest.mark.parametrize("mark", [START, END])
@pytest.mark.parametrize("tokenizer", [TOKENIZER, Tokenizer.from_json(TOKENIZER.to_json())], ids=["trained", "read"])
def test_a_spelled_out_mark_is_plain_text(tokenizer: Tokenizer, mark: str) -> None:
    text = f"a cat {mark} a dog{mark}"
    ids, _ = tokenizer([text], 200)
    row = ids[0].tolist()
    assert row.count(tokenizer.end_id) == 1
    assert squeezed(tokenizer.decode(row)) == squeezed(text)


def test_emoji_and_very_long_texts() -> None:
    row, truncated = ids_of("🦔👩‍👩‍👧", 100)
    assert squeezed(TOKENIZER.decode(row)) == "🦔👩‍👩‍👧"
    assert not truncated
    row, truncated = ids_of("cat " * 50_000, 16)
    assert truncated
    assert row[-1] == TOKENIZER.end_id


def test_half_a_surrogate_pair_is_an_input_error() -> None:
    with pytest.raises(InputError, match=r"text 'a \\ud83d' contains half of a surrogate pair: decode it as UTF-8"):
        TOKENIZER(["fine", "a \ud83d"], 8)


def test_no_texts_are_no_rows() -> None:
    ids, truncated = TOKENIZER([], 7)
    assert ids.shape == (0, 7)
    assert ids.dtype == np.int32
    assert truncated.shape == (0,)


@given(st.lists(ANY_TEXT, min_size=1, max_size=6), st.integers(3, 12))
def test_a_row_does_not_depend_on_its_batch(texts: list[str], context: int) -> None:
    ids, truncated = TOKENIZER(texts, context)
    for text, row, cut in zip(texts, ids.tolist(), truncated.tolist(), strict=True):
        assert (row, cut) == ids_of(text, context)


@pytest.mark.parametrize("asked", [514, 515, 560, 5000])
def test_the_vocabulary_is_no_larger_than_asked(asked: int) -> None:
    tokenizer = Tokenizer.train(CORPUS, asked)
    assert 514 <= tokenizer.vocab_size <= asked
    ids, _ = tokenizer([*CORPUS, "ÿ🦔"], 60)
    assert int(ids.max()) < tokenizer.vocab_size


def test_a_vocabulary_without_room_for_all_bytes_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"vocab = 513: a byte-level tokenizer with .* needs at least 514"):
        Tokenizer.train(CORPUS, 513)


def test_a_tokenizer_without_captions_knows_bytes() -> None:
    assert Tokenizer.train([], 600).vocab_size == 514


def test_merges_are_learned() -> None:
    row, _ = ids_of("a photo of a cat")
    assert row.index(TOKENIZER.end_id) < len("a photo of a cat") // 2


def test_training_is_deterministic() -> None:
    once, again = (Tokenizer.train(iter(CORPUS), 560) for _ in range(2))
    assert once.to_json() == again.to_json()
    assert once.identity() == again.identity() != TOKENIZER.identity()


READ = Tokenizer.from_json(TOKENIZER.to_json().encode())


@given(ANY_TEXT)
def test_json_gives_the_same_tokenizer(text: str) -> None:
    np.testing.assert_array_equal(READ([text], 50)[0], TOKENIZER([text], 50)[0])
    assert READ.identity() == TOKENIZER.identity()


@pytest.mark.parametrize("text", ["", "{}", "null", "[1]", '{"version": "1.0"}', "not json", b"\xff\xfe"])
def test_what_is_no_tokenizer_is_a_bundle_error(text: str | bytes) -> None:
    with pytest.raises(BundleError, match=r"^tokenizer\.json cannot be read: "):
        Tokenizer.from_json(text)


def test_a_tokenizer_without_marks_is_refused() -> None:
    tree = json.loads(TOKENIZER.to_json().replace(END, "<|stop|>"))
    with pytest.raises(BundleError, match=r"the tokenizer lacks <\|startoftext\|> or <\|endoftext\|>"):
        Tokenizer.from_json(json.dumps(tree))
