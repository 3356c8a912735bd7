"""Merges learned from counts, against counting everything anew after each merge, and against another program."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, trainers

from raylens.errors import BundleError
from raylens.inputs import Tokenizer
from raylens.inputs.bpe import learn_merges
from raylens.inputs.vocabulary import LONGEST_WORD, SMALLEST, count_words

Words = dict[tuple[str, ...], int]
SPELLED = st.lists(st.sampled_from("abc"), min_size=1, max_size=9).map(tuple)
WORDS = st.dictionaries(SPELLED, st.integers(1, 9), max_size=12)


def merged(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    out: list[str] = []
    for symbol in word:
        if out and (out[-1], symbol) == pair:
            out[-1] += symbol
        else:
            out.append(symbol)
    return tuple(out)


def naive(words: Words, count: int) -> list[tuple[str, str]]:
    """The definition: count all pairs, take the first of the most frequent, merge it everywhere."""
    left, merges = [(word, times) for word, times in words.items()], []
    for _ in range(count):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, times in left:
            for pair in pairwise(word):
                pairs[pair] += times
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        if pairs[best] < 2:
            break
        merges.append(best)
        left = [(merged(word, best), times) for word, times in left]
    return merges


@given(WORDS, st.integers(0, 12))
def test_merges_are_those_of_the_definition(words: Words, count: int) -> None:
    assert learn_merges(words, count) == naive(words, count)


@given(WORDS)
def test_the_order_of_the_words_means_nothing(words: Words) -> None:
    shuffled = dict(sorted(words.items(), reverse=True))
    assert learn_merges(shuffled, 9) == learn_merges(words, 9)


def test_texts_take_as_many_tokens_as_with_the_librarys_own_trainer() -> None:
    syllables = ["ba", "ko", "mi", "tra", "lun", "es", "or", "ix", "pho", "quen"]
    corpus = [f"{a}{b} {b}{c}{a} {c}" for a in syllables for b in syllables for c in syllables[:7]]
    ours = Tokenizer.train(corpus, SMALLEST + 80)
    theirs = tokenizers.Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    theirs.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(False)])
    trainer = trainers.BpeTrainer(vocab_size=10_000, min_frequency=2, end_of_word_suffix="</w>", show_progress=False)
    theirs.train_from_iterator(corpus, trainer)
    alphabet = sum(len(token.removesuffix("</w>")) == 1 for token in theirs.get_vocab())
    trainer = trainers.BpeTrainer(vocab_size=alphabet + 80, end_of_word_suffix="</w>", show_progress=False)
    theirs.train_from_iterator(corpus, trainer)
    counts = [sum(ours.count(text) for text in corpus), sum(len(theirs.encode(text).ids) for text in corpus)]
    assert counts[0] == pytest.approx(counts[1], rel=0.05)


@given(st.lists(st.text("ab '1!", max_size=12), max_size=8), st.integers(0, 8))
def test_counts_of_parts_add_up(captions: list[str], cut: int) -> None:
    assert count_words(captions[:cut]) + count_words(captions[cut:]) == count_words(captions)


def test_what_is_too_long_to_be_a_word_teaches_nothing() -> None:
    assert Tokenizer.train(["ab" * LONGEST_WORD] * 3, 600).vocab_size == SMALLEST


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("merges.txt.gz", b"no gzip", "is not a tokenizer"),
        ("merges.txt.gz", b"\x1f\x8b\x08\x00", "is not a tokenizer"),
        ("merges.txt", b"one line\nno merge\n", "is not a tokenizer: .*out of vocabulary"),
        ("tokenizer.json", b"[]", "cannot be read"),
        ("vocab.json", b"{}", "merges.txt is missing"),
    ],
)
def test_what_is_no_vocabulary_is_named(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BundleError, match=words) as caught:
        Tokenizer.from_file(tmp_path if name == "vocab.json" else tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_vocabulary_without_all_bytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text('{"a": 0, "a</w>": 1}')
    (tmp_path / "merges.txt").write_text("#version\n")
    with pytest.raises(BundleError, match="the vocabulary lacks 255 of 256 bytes"):
        Tokenizer.from_file(tmp_path)
