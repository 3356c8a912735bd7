"""Captions as CLIP reads them: mended Unicode, no HTML entities, single spaces, lower case."""

import html

import ftfy

from raylens.errors import InputError

__all__ = ["clean"]

# Nothing but printable ASCII without an entity: neither ftfy nor HTML has anything to do.
PLAIN = {character: None for character in range(32, 127) if chr(character) != "&"}


def clean(text: str) -> str:
    """What the reference tokenizer does to a text before it splits it.

    Raises:
        InputError: the text has half of a surrogate pair, which no encoding of Unicode can express.
    """
    if text.translate(PLAIN):
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise InputError(f"text {text[:80]!r} has half of a surrogate pair: decode it as UTF-8")
        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    # The reference's pattern ignores case, which makes this mark a letter (iota) for one part of it and none for the
    # other: it separates words, and is lost. Of all characters, it is the only such one.
    return " ".join(text.replace("\u0345", " ").split()).lower()
