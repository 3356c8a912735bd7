"""Data set URIs with globs and braces: the folder that they start from, and the shards that they name."""

import glob
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, product
from math import prod
from urllib.parse import unquote

from raylens.errors import ConfigError, ManifestError
from raylens.storage import ObjectInfo

__all__ = ["match", "named", "split_pattern"]

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


SHARD_SUFFIXES = (".tar", ".parquet", ".csv", ".tsv", ".jsonl")
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
CLASS = r"\[(?P<negated>[!^]?)(?P<members>\][^\]]*|[^\]]+)\]"
GLOB = re.compile(rf"(?P<folders>(?:(?<=/)|^)\*\*/)|(?P<deep>\*\*)|(?P<any>\*)|(?P<one>\?)|{CLASS}")
FIRST = re.compile(rf"[*?{{]|{CLASS}")
"""What makes a part of a path a pattern."""


def split_pattern(uri: str) -> tuple[str, tuple[str, ...]]:
    """The URI of the folder above a data set's first pattern, and the patterns below it with their braces expanded.

    Known are ``*`` and ``[...]`` within a part of the path, ``**`` across parts, ``{000..127}`` and ``{a,b}``; and
    ``?`` in local paths, since in other URIs the options begin there. A URI of one shard is its folder and its name.

    Returns:
        The URI as it is and no patterns, where it has none.

    Raises:
        ConfigError: braces do not close, are neither a range nor alternatives, or name too many shards; or the
            bucket is a pattern.
    """
    scheme = SCHEME.match(uri)
    remote = scheme is not None and scheme.group(1).lower() != "file"
    text, mark, options = uri.partition("?") if remote else (uri, "", "")
    start = scheme.end() if scheme else 0
    first = FIRST.search(text, start)
    if first is None and not text.endswith(SHARD_SUFFIXES):
        return uri, ()
    cut = text.rfind("/", start, first.start() if first else len(text))
    if remote and cut < 0:
        raise ConfigError(f"data set {text!r}: the bucket cannot be a pattern; write {text[:start]}bucket/pattern")
    below = text[max(cut + 1, start) :]
    patterns = expand(below, f"data set {text!r}") if first else (below,)
    if scheme:
        patterns = tuple(ESCAPED.sub(_unescaped, pattern) for pattern in patterns)
    return f"{_folder(text, cut, start)}{mark}{options}", patterns


def _folder(text: str, cut: int, start: int) -> str:
    if cut < 0:
        return "."
    # The root is the one folder that ends in its slash.
    return text[:cut] if cut > start else text[: cut + 1]


ESCAPED = re.compile(r"(?:%[0-9A-Fa-f]{2})+")


def _unescaped(found: re.Match[str]) -> str:
    """What is escaped in a URI is itself, not a pattern."""
    return glob.escape(unquote(found.group()))


def match(patterns: Sequence[str], objects: Sequence[ObjectInfo]) -> list[ObjectInfo]:
    """The objects that patterns name, in the order of their paths, each once.

    Raises:
        ManifestError: one of the patterns names nothing; says which and how many.
        ConfigError: a pattern is not one.
    """
    found, missing = _search(patterns, objects)
    if missing:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise ManifestError(
            f"{len(missing)} of {len(patterns)} shards or patterns match nothing ({shown}) among {len(objects)} "
            "shards: check the pattern in data.train, or put the shards there"
        )
    return found


def named(patterns: Sequence[str], objects: Sequence[ObjectInfo]) -> list[ObjectInfo]:
    """The same, where a pattern may name nothing.

    Raises:
        ConfigError: a pattern is not one.
    """
    return _search(patterns, objects)[0]


def _search(patterns: Sequence[str], objects: Sequence[ObjectInfo]) -> tuple[list[ObjectInfo], list[str]]:
    """What patterns name, and the patterns that name nothing."""
    ordered = sorted(objects, key=lambda info: info.path)
    paths = [info.path for info in ordered]
    numbers = {path: number for number, path in enumerate(paths)}
    chosen: set[int] = set()
    missing: list[str] = []
    for pattern in patterns:
        # An object may have the very name that is also a pattern.
        found = ([numbers[pattern]] if pattern in numbers else []) + _matching(pattern, paths)
        chosen.update(found)
        if not found:
            missing.append(pattern)
    return [ordered[number] for number in sorted(chosen)], missing


def _matching(pattern: str, paths: list[str]) -> list[int]:
    first = GLOB.search(pattern)
    if first is None:
        return []
    # Sorted paths that begin alike are neighbours: only they are compared.
    beginning, whole = pattern[: first.start()], _regex(pattern)
    found = []
    for number in range(bisect_left(paths, beginning), len(paths)):
        if not paths[number].startswith(beginning):
            break
        if whole.fullmatch(paths[number]):
            found.append(number)
    return found


def _regex(pattern: str) -> re.Pattern[str]:
    parts, end = [], 0
    for token in GLOB.finditer(pattern):
        parts += [re.escape(pattern[end : token.start()]), _token(token, pattern)]
        end = token.end()
    return re.compile("".join([*parts, re.escape(pattern[end:])]), re.DOTALL)


def _token(token: re.Match[str], pattern: str) -> str:
    if token["members"]:
        return f"(?!/)[{'^' if token['negated'] else ''}{_members(token['members'], pattern)}]"
    simple = {"folders": "(?:.*/)?", "deep": ".*", "any": "[^/]*", "one": "[^/]"}
    return next(regex for name, regex in simple.items() if token[name])


def _members(members: str, pattern: str) -> str:
    """A class's characters and ranges, each escaped."""
    parts = []
    for low, high, single in re.findall(r"(?s)(.)-(.)|(.)", members):
        if low > high:
            raise ConfigError(f"pattern {pattern!r}: the range {low}-{high} is empty; write {high}-{low}")
        parts.append(re.escape(single) if single else f"{re.escape(low)}-{re.escape(high)}")
    return "".join(parts)
