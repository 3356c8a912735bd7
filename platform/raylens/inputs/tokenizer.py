"""Captions to token ids: lower-cased byte-level BPE with a start and an end token."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from raylens.errors import BundleError, ConfigError, InputError

__all__ = ["END", "START", "Tokenizer"]

START = "<|startoftext|>"
END = "<|endoftext|>"
PAD_ID = 0
SMALLEST = 258  # 256 bytes, start, end


class Tokenizer:
    """Byte-level BPE over lower-cased text (Radford et al. 2021, section 2.4).

    Every string has ids: bytes that no merge covers stand for themselves. Rows are padded with 0 behind the end
    token; a text too long for the context keeps its first tokens and the end token, and is reported.
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        start, end = backend.token_to_id(START), backend.token_to_id(END)
        if start is None or end is None:
            raise BundleError(f"tokenizer.json lacks {START} or {END}: it is not a tokenizer of raylens")
        # A caption that spells out "<|endoftext|>" must not end itself: marks come from __call__ alone.
        backend.encode_special_tokens = True
        self._backend: Any = backend
        self.start_id: int = start
        self.end_id: int = end

    @classmethod
    def train(cls, captions: Iterable[str], vocab_size: int) -> Self:
        """Learn merges from captions, most frequent pairs first.

        Raises:
            ConfigError: ``vocab_size`` has no room for the 256 bytes and the two marks.
        """
        if vocab_size < SMALLEST:
            raise ConfigError(f"vocab = {vocab_size}: a byte-level tokenizer needs at least {SMALLEST}")
        backend = tokenizers.Tokenizer(models.BPE())
        backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            # Runs of white space mean nothing in a caption; words then carry the space before them.
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=True)]
        )
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            show_progress=False,
            special_tokens=[START, END],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        )
        backend.train_from_iterator(captions, trainer=trainer)
        return cls(backend)

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
        for row, encoding in enumerate(self._encodings(texts)):
            ids = encoding.ids[: context - 2]
            truncated_B[row] = len(encoding.ids) > len(ids)
            ids_BT[row, : len(ids) + 2] = [self.start_id, *ids, self.end_id]
        return ids_BT, truncated_B

    def _encodings(self, texts: Sequence[str]) -> Any:
        try:
            return self._backend.encode_batch(list(texts), add_special_tokens=False)
        except TypeError:
            for text in texts:
                if any("\ud800" <= character <= "\udfff" for character in text):
                    raise InputError(f"text {text[:80]!r} has half of a surrogate pair: decode it as UTF-8") from None
            raise

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a row of ids; marks and padding are left out."""
        row = list(ids)
        if self.end_id in row:
            row = row[: row.index(self.end_id)]
        return str(self._backend.decode(row, skip_special_tokens=True)).strip()
