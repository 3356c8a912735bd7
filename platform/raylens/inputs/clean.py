"""Cleaning of captions as CLIP does it: repaired Unicode, no HTML entities, single spaces, lower case."""

import html

import ftfy

from raylens.errors import InputError

__all__ = ["clean"]

# Only printable ASCII without an entity: neither ftfy nor the unescaping of HTML would change it.
PLAIN = {character: None for character in range(32, 127) if chr(character) != "&"}


def clean(text: str) -> str:
    """Clean a text as the reference tokenizer does before it splits the text.

    Raises:
        InputError: the text contains half of a surrogate pair, which no encoding of Unicode can express.
    """
    if text.translate(PLAIN):
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise InputError(f"text {text[:80]!r} contains half of a surrogate pair: decode it as UTF-8")
        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    # The reference's pattern ignores case, so one part of it takes this mark for a letter (iota) and the other does
    # not: the mark separates words and is lost. It is the only such character.
    return " ".join(text.replace("\u0345", " ").split()).lower()
