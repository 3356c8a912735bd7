"""Braces as shells expand them: ``{000..127}`` and ``{train,val}``, one in the other."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain, product
from math import prod

from raylens.errors import ConfigError

__all__ = ["LARGEST", "expand"]

LARGEST = 1_000_000
"""Texts that one text may stand for."""
DEEPEST = 20
RANGE = re.compile(r"\{([0-9]{1,18})\.\.([0-9]{1,18})\}")
PLAIN = re.compile(r"\[[!^]?(?:\][^\]]*|[^\]]+)\]|.", re.DOTALL)
"""A character that is itself; a glob's class is one."""


def expand(text: str, where: str) -> tuple[str, ...]:
    """All texts that a text with braces stands for, in the order that a shell would give.

    A range counts up or down; with a leading zero at either end, its numbers have the longer end's width. In a glob's
    ``[...]``, braces are characters.

    Raises:
        ConfigError: a brace is not closed, or holds neither a range nor alternatives, or the texts are more than
            `LARGEST`; the message begins with ``where``.
    """
    whole = _Parser(text, where).sequence()
    if whole.count > LARGEST:
        raise ConfigError(f"{where}: its braces stand for {whole.count} names, more than {LARGEST}; write a glob (*)")
    return tuple(whole.texts())


@dataclass(frozen=True)
class _Part:
    """What a part of the text stands for, counted before it is written out."""

    count: int
    texts: Callable[[], Iterable[str]]


class _Parser:
    def __init__(self, text: str, where: str) -> None:
        self._text, self._where, self._at, self._depth = text, where, 0, 0

    def sequence(self) -> _Part:
        """Up to the end; within braces, up to what ends this alternative."""
        parts: list[_Part] = []
        plain = ""
        while self._at < len(self._text) and not (self._depth and self._text[self._at] in ",}"):
            if self._text[self._at] == "{":
                parts += [_literal(plain), self._brace()]
                plain = ""
            else:
                plain += self._next()
        parts.append(_literal(plain))
        return _Part(
            prod(part.count for part in parts), lambda: map("".join, product(*(part.texts() for part in parts)))
        )

    def _next(self) -> str:
        found = PLAIN.match(self._text, self._at)
        assert found is not None  # any character will do
        self._at = found.end()
        return found.group()

    def _brace(self) -> _Part:
        found = RANGE.match(self._text, self._at)
        if found is not None:
            self._at = found.end()
            return _range(found[1], found[2])
        begin = self._at
        if self._depth == DEEPEST:
            raise ConfigError(f"{self._where}: more than {DEEPEST} braces in each other; write a glob (*)")
        self._depth += 1
        alternatives: list[_Part] = []
        while not alternatives or self._text[self._at] == ",":
            self._at += 1
            alternatives.append(self.sequence())
            if self._at == len(self._text):
                raise ConfigError(
                    f"{self._where}: the brace of {self._text[begin:]!r} is not closed; write [{{] for one"
                )
        self._at += 1
        self._depth -= 1
        if len(alternatives) == 1:
            raise ConfigError(f"{self._where}: {self._text[begin : self._at]!r} is neither {{0..9}} nor {{a,b}}")
        return _Part(
            sum(one.count for one in alternatives),
            lambda: chain.from_iterable(one.texts() for one in alternatives),
        )


def _literal(text: str) -> _Part:
    return _Part(1, lambda: (text,))


def _range(first: str, last: str) -> _Part:
    padded = any(len(end) > 1 and end.startswith("0") for end in (first, last))
    width = max(len(first), len(last)) if padded else 0
    start, stop = int(first), int(last)
    step = 1 if start <= stop else -1
    return _Part(abs(stop - start) + 1, lambda: (f"{number:0{width}d}" for number in range(start, stop + step, step)))
