"""The tokenizer of captions: CLIP's lower-cased byte-level BPE with a start and an end token."""

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

    Every string can be encoded: bytes that no merge covers have ids of their own. Rows are padded with 0 after the end
    token; a text that is too long for the context keeps its first tokens and the end token, and is reported.
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        start, end = backend.token_to_id(START), backend.token_to_id(END)
        if start is None or end is None:
            raise BundleError(f"the tokenizer lacks {START} or {END}: it is not a tokenizer of CLIP's kind")
        # A caption that contains "<|endoftext|>" must not end there: only __call__ adds start and end tokens.
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
            ConfigError: ``vocab_size`` has no room for the 256 bytes, twice, and the start and end tokens.
        """
        return cls.from_counts(count_words(captions), vocab_size)

    @classmethod
    def from_counts(cls, words: Counter[str], vocab_size: int) -> Self:
        """Learn merges as `train` does, from counts of words (see `raylens.inputs.vocabulary.count_words`)."""
        return cls(learn_backend(words, vocab_size))

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read `bpe_simple_vocab_16e6.txt.gz`, `tokenizer.json`, or a folder with `vocab.json` and `merges.txt`.

        Raises:
            BundleError: there is no such file, or it is none of these.
        """
        return cls(backend_from_file(path))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read the text of ``tokenizer.json``.

        Raises:
            BundleError: the text is not a tokenizer, or lacks the start or end token.
        """
        try:
            backend = tokenizers.Tokenizer.from_str(text.decode() if isinstance(text, bytes) else text)
        # The library raises bare Exception for every parse error, and the line does nothing else.
        except Exception as error:  # noqa: BLE001
            raise BundleError(f"tokenizer.json cannot be read: {error}") from None
        return cls(backend)

    def to_json(self) -> str:
        """Return the text of ``tokenizer.json``, which the ``tokenizers`` library can load."""
        return str(self._backend.to_str(pretty=True))

    def identity(self) -> str:
        """Return a hash of everything that changes the ids of a text."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @property
    def vocab_size(self) -> int:
        """The number of tokens: ids run from 0 to this, exclusive."""
        return int(self._backend.get_vocab_size())

    def __call__(self, texts: Sequence[str], context: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Encode texts as rows of token ids.

        Args:
            texts: ``B`` strings.
            context: the tokens of a row, start and end tokens included.

        Returns:
            ids ``[B, context]`` int32, and which texts were truncated, ``[B]`` bool.

        Raises:
            InputError: a text contains half of a surrogate pair, which no encoding of Unicode can express.
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
        """Count the tokens of a text, without the start and end tokens."""
        return len(self._backend.encode(clean(text), add_special_tokens=False).ids)

    def token(self, number: int) -> str:
        """Return the vocabulary's entry at an id: bytes as visible characters, with ``</w>`` at the end of a word."""
        return str(self._backend.id_to_token(number))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of a row of ids, without start and end tokens and padding."""
        row = list(ids)
        if self.end_id in row:
            row = row[: row.index(self.end_id)]
        return str(self._backend.decode(row, skip_special_tokens=True)).strip()
