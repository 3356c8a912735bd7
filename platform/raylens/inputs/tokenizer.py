"""Captions to token ids: CLIP's lower-cased byte-level BPE with a start and an end token."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import tokenizers
from numpy.typing import NDArray

from raylens.errors import BundleError
from raylens.inputs.clean import clean
from raylens.inputs.vocabulary import END, START, backend_from_file, count_words, learn_backend

__all__ = ["Tokenizer"]

PAD_ID = 0


class Tokenizer:
    """Byte-level BPE over cleaned, lower-cased text (Radford et al. 2021, section 2.4).

    Every string has ids: bytes that no merge covers stand for themselves. Rows are padded with 0 behind the end
    token; a text too long for the context keeps its first tokens and the end token, and is reported.
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        start, end = backend.token_to_id(START), backend.token_to_id(END)
        if start is None or end is None:
            raise BundleError(f"the tokenizer lacks {START} or {END}: it is not one of CLIP's kind")
        # A caption that spells out "<|endoftext|>" must not end itself: marks come from __call__ alone.
        backend.encode_special_tokens = True
        backend.no_truncation()
        backend.no_padding()
        self._backend: Any = backend
        self.start_id: int = start
        self.end_id: int = end

    @classmethod
    def train(cls, captions: Iterable[str], vocab_size: int) -> Self:
        """Learn merges from captions, most frequent pairs first.

        Raises:
            ConfigError: ``vocab_size`` has no room for the 256 bytes, twice, and the two marks.
        """
        return cls.from_counts(count_words(captions), vocab_size)

    @classmethod
    def from_counts(cls, words: Counter[str], vocab_size: int) -> Self:
        """As `train`, from words that were counted before (see `raylens.inputs.vocabulary.count_words`)."""
        return cls(learn_backend(words, vocab_size))

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """OpenAI's `bpe_simple_vocab_16e6.txt.gz`, a `tokenizer.json`, or a folder with `vocab.json` and `merges.txt`.

        Raises:
            BundleError: there is no such file, or it is none of these.
        """
        return cls(backend_from_file(path))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read the text of ``tokenizer.json``.

        Raises:
            BundleError: it is not a tokenizer, or lacks the start or end token.
        """
        try:
            backend = tokenizers.Tokenizer.from_str(text.decode() if isinstance(text, bytes) else text)
        # The library raises bare Exception for every parse error; the line does nothing else.
        except Exception as error:  # noqa: BLE001
            raise BundleError(f"tokenizer.json cannot be read: {error}") from None
        return cls(backend)

    def to_json(self) -> str:
        """The text of ``tokenizer.json``, loadable by the ``tokenizers`` library."""
        return str(self._backend.to_str(pretty=True))

    def identity(self) -> str:
        """A hash of everything that changes the ids of a text."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @property
    def vocab_size(self) -> int:
        """Ids run from 0 to this, exclusive."""
        return int(self._backend.get_vocab_size())

    def __call__(self, texts: Sequence[str], context: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Encode texts.

        Args:
            texts: ``B`` strings.
            context: tokens a row has, marks included.

        Returns:
            ids ``[B, context]`` int32, and which texts were truncated, ``[B]`` bool.

        Raises:
            InputError: a text has half of a surrogate pair, which no encoding of Unicode can express.
        """
        ids_BT = np.full((len(texts), context), PAD_ID, dtype=np.int32)
        truncated_B = np.zeros(len(texts), dtype=np.bool_)
        encodings = self._backend.encode_batch([clean(text) for text in texts], add_special_tokens=False)
        for row, encoding in enumerate(encodings):
            ids = encoding.ids[: context - 2]
            truncated_B[row] = len(encoding.ids) > len(ids)
            ids_BT[row, : len(ids) + 2] = [self.start_id, *ids, self.end_id]
        return ids_BT, truncated_B

    def count(self, text: str) -> int:
        """Tokens of a text, marks not counted."""
        return len(self._backend.encode(clean(text), add_special_tokens=False).ids)

    def token(self, number: int) -> str:
        """What the vocabulary has at an id: bytes as characters that can be seen, ``</w>`` at the end of a word."""
        return str(self._backend.id_to_token(number))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a row of ids; marks and padding are left out."""
        row = list(ids)
        if self.end_id in row:
            row = row[: row.index(self.end_id)]
        return str(self._backend.decode(row, skip_special_tokens=True)).strip()
