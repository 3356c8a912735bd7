"""Vocabularies in their usual file formats, and the ``tokenizers`` backend that encodes with one."""

import gzip
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from raylens.errors import BundleError, ConfigError
from raylens.inputs.bpe import Pair, learn_merges
from raylens.inputs.clean import clean

__all__ = ["END", "SMALLEST", "START", "backend_from_file", "backend_of", "count_words", "learn_backend"]

START = "<|startoftext|>"
END = "<|endoftext|>"
END_OF_WORD = "</w>"
SMALLEST = 514
"""The smallest vocabulary: 256 bytes, each within a word and at its end, and the start and end tokens."""
LONGEST_WORD = 1000
"""The most characters of a word. The time to learn from a word grows with the square of its length."""
OPENAI_MERGES = 49_152 - 256 - 2
"""The merges of OpenAI's file that are used; the file has more lines."""
# Radford et al. 2021, section 2.4: contractions, runs of letters, single digits, runs of anything else.
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def backend_of(merges: Sequence[Pair]) -> Any:
    """Return the backend of these merges, with ids in OpenAI's order: bytes, final bytes, merges, start, end."""
    alphabet = _alphabet()
    tokens = [*alphabet, *(symbol + END_OF_WORD for symbol in alphabet), *(a + b for a, b in merges), START, END]
    return _backend({token: number for number, token in enumerate(tokens)}, merges)


def backend_from_file(path: Path) -> Any:
    """Read OpenAI's merges, a `tokenizer.json`, or a folder with the latter or with `vocab.json` and `merges.txt`.

    Raises:
        BundleError: there is no such file, or it is none of these.
    """
    try:
        if path.is_dir():
            if (path / "tokenizer.json").exists():
                return _from_json((path / "tokenizer.json").read_text(encoding="utf-8"))
            vocabulary = json.loads((path / "vocab.json").read_text(encoding="utf-8"))
            return _backend(vocabulary, _merges((path / "merges.txt").read_text(encoding="utf-8")))
        if path.suffix == ".json":
            return _from_json(path.read_text(encoding="utf-8"))
        text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return backend_of(_merges(text.decode())[:OPENAI_MERGES])
    except FileNotFoundError as error:
        raise BundleError(f"no tokenizer at {path}: {error.filename} is missing") from None
    except (OSError, EOFError, ValueError) as error:
        raise BundleError(f"{path} is not a tokenizer: {' '.join(str(error).split())}") from None


def _from_json(text: str) -> Any:
    # The library raises bare Exception for every parse error; the line does nothing else.
    try:
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # noqa: BLE001
        raise BundleError(f"tokenizer.json cannot be read: {error}") from None


def count_words(captions: Iterable[str]) -> Counter[str]:
    """Count each word of captions, after `clean`. Merges never cross the bounds of these words."""
    splitter = pre_tokenizers.Split(tokenizers.Regex(WORDS), behavior="removed", invert=True)
    counts: Counter[str] = Counter()
    for caption in captions:
        counts.update(word for word, _ in splitter.pre_tokenize_str(clean(caption)))
    return counts


def learn_backend(words: Counter[str], vocab_size: int) -> Any:
    """Learn as many merges as ``vocab_size`` has room for from counts of words, and return their backend.

    Raises:
        ConfigError: ``vocab_size`` has no room for the bytes and the start and end tokens.
    """
    if vocab_size < SMALLEST:
        raise ConfigError(
            f"vocab = {vocab_size}: a byte-level tokenizer with end-of-word marks needs at least {SMALLEST}"
        )
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    spelled: Counter[tuple[str, ...]] = Counter()
    for word, count in sorted((word, count) for word, count in words.items() if len(word) <= LONGEST_WORD):
        ((symbols, _),) = to_bytes.pre_tokenize_str(word)
        spelled[*symbols[:-1], symbols[-1] + END_OF_WORD] += count
    return backend_of(learn_merges(spelled, vocab_size - SMALLEST))


def _backend(vocabulary: dict[str, int], merges: Sequence[Pair]) -> Any:
    missing = [symbol for symbol in _alphabet() if symbol not in vocabulary or symbol + END_OF_WORD not in vocabulary]
    if missing:
        raise ValueError(f"the vocabulary lacks {len(missing)} of 256 bytes, {missing[0]!r} among them")
    # The library raises bare Exception for merges of unknown tokens, and the line does nothing else.
    try:
        model = models.BPE(vocab=vocabulary, merges=list(merges), end_of_word_suffix=END_OF_WORD)
    except Exception as error:  # noqa: BLE001
        raise ValueError(str(error)) from None
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    # A space in the byte alphabet, so that the decoder after it decodes all bytes of a character together.
    backend.decoder = decoders.Sequence([decoders.Replace(END_OF_WORD, "Ġ"), decoders.ByteLevel()])
    backend.add_special_tokens([START, END])
    # raylens adds start and end tokens itself; this is for other programs that read tokenizer.json.
    marks = [(mark, backend.token_to_id(mark)) for mark in (START, END)]
    backend.post_processor = processors.TemplateProcessing(single=f"{START} $A {END}", special_tokens=marks)
    return backend


def _merges(text: str) -> list[Pair]:
    """Parse lines of two symbols, after a first line that names the version."""
    merges: list[Pair] = []
    for line in text.split("\n")[1:]:
        if line:
            first, _, second = line.strip().partition(" ")
            merges.append((first, second))
    return merges


def _alphabet() -> list[str]:
    """Return the 256 bytes as visible characters, in OpenAI's order: bytes that are visible themselves come first."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in seen]
    return [chr(byte) for byte in seen] + [chr(256 + number) for number in range(len(hidden))]
