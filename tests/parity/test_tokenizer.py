"""Ids equal those of OpenCLIP's tokenizer, given the same vocabulary file."""

import gzip
import json
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylens.inputs import Tokenizer
from tests.parity.peers import open_clip, vocabulary_file

WORDS = ("a photo of", "word " * 90, "x" * 300, "1234", "...!?", "_", "<|endoftext|>", "\t\n", "\x00", "\x1f", "\xa0")
SHORT = ("'s", "'\u017f", "'\u212a", "N'T", "I'll", "we'VE")
ENTITIES = ("&amp;", "&lt;b&gt;", "&amp;amp;", "&nbsp;", "&#x1F600;", "e&#769;")
LETTERS_AND_MARKS = (
    "caf\u00e9", "cafe\u0301", "\ufb01ne", "\u65e5\u672c", "\u0391\u03a3", "\u0130stanbul", "\u200b", "\u3000",
    "\u201cx\u201d",
    "\u00c3\u00a9", "\ufdfa", "\u0345", "\u0663", "\u00bd", "\U0001d400", "\U0001f600",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467",
)  # fmt: skip
PIECES = [*WORDS, *SHORT, *ENTITIES, *LETTERS_AND_MARKS]


def assigned(letter: str) -> bool:
    """Programs differ in which version of Unicode they know: what is not assigned in Python's is left out."""
    return unicodedata.category(letter) not in ("Cn", "Co", "Cs")


LETTERS = st.characters(exclude_categories=["Cn", "Co", "Cs"]).filter(assigned)
TEXTS = st.lists(st.sampled_from([*PIECES, *" " * 20]) | LETTERS, max_size=16).map("".join)


@pytest.fixture(scope="module")
def ours() -> Tokenizer:
    return Tokenizer.from_file(vocabulary_file())


@settings(deadline=None, max_examples=600)
@given(TEXTS)
def test_ids_are_those_of_openclip(text: str) -> None:
    assert OURS([text], 77)[0].tolist() == THEIRS([text], 77).tolist()


def test_every_character_there_is() -> None:
    """One text for each assigned character of all planes, within a word, behind an apostrophe and before a letter."""
    texts = [
        f"x{chr(number)}y '{chr(number)} {chr(number)}S"
        for number in range(1, sys.maxunicode + 1)
        if assigned(chr(number)) and (number % 7 == 0 or number < 0x3000)
    ]
    found = OURS(texts, 24)[0].tolist()
    expected = THEIRS(texts, 24).tolist()
    assert [text for text, one, other in zip(texts, found, expected, strict=True) if one != other] == []


OURS, THEIRS = Tokenizer.from_file(vocabulary_file()), open_clip().tokenizer.SimpleTokenizer()


def test_a_caption_cannot_end_itself(ours: Tokenizer) -> None:
    """OpenCLIP reads its own mark in a text as the mark; ours never does."""
    text = "a dog <end_of_text> and a cat"
    assert THEIRS([text], 77)[0].tolist().count(49407) == 2
    assert ours([text], 77)[0][0].tolist().count(49407) == 1


def test_truncation_keeps_the_end_token_and_is_told(ours: Tokenizer) -> None:
    ids, cut = ours(["dog " * 75, "dog " * 76], 77)
    assert ids[:, -1].tolist() == [49407, 49407]
    assert cut.tolist() == [False, True]


def test_other_forms_of_the_vocabulary_give_the_same_ids(ours: Tokenizer, tmp_path: Path) -> None:
    lines = gzip.decompress(vocabulary_file().read_bytes()).decode().split("\n")[: 49_152 - 256 - 2 + 1]
    (tmp_path / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    vocabulary = {
        ("<|startoftext|>", "<|endoftext|>")[n - 49406] if n > 49405 else t: n for t, n in THEIRS.encoder.items()
    }
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "tokenizer.json").write_text(ours.to_json())
    texts = ["A photo of a caf\u00e9, isn't it? 1234 \U0001f600", "", *PIECES]
    wanted = ours(texts, 77)[0].tolist()
    assert Tokenizer.from_file(tmp_path / "tokenizer.json")(texts, 77)[0].tolist() == wanted
    (tmp_path / "tokenizer.json").unlink()
    assert Tokenizer.from_file(tmp_path)(texts, 77)[0].tolist() == wanted
