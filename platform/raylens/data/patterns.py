"""Data set URIs with globs and braces: the folder above the pattern, and the shards that match it."""

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
"""Most names that one text with braces may expand to."""
DEEPEST = 20
RANGE = re.compile(r"\{([0-9]{1,18})\.\.([0-9]{1,18})\}")
PLAIN = re.compile(r"\[[!^]?(?:\][^\]]*|[^\]]+)\]|.", re.DOTALL)
"""A literal character, or the class of a glob as a whole."""


def expand(text: str, where: str) -> tuple[str, ...]:
    """Expand the braces of a text, in the order in which a shell does.

    A range counts up or down; if either end has a leading zero, all numbers have the width of the longer end. In a
    glob's ``[...]``, braces are characters.

    Raises:
        ConfigError: a brace is not closed, holds neither a range nor alternatives, or expands to more names than
            `LARGEST`; the message begins with ``where``.
    """
    whole = _Parser(text, where).sequence()
    if whole.count > LARGEST:
        raise ConfigError(f"{where}: its braces expand to {whole.count} names, more than {LARGEST}; write a glob (*)")
    return tuple(whole.texts())


@dataclass(frozen=True)
class _Part:
    """The expansions of a part of the text, counted before they are made."""

    count: int
    texts: Callable[[], Iterable[str]]


class _Parser:
    def __init__(self, text: str, where: str) -> None:
        self._text, self._where, self._at, self._depth = text, where, 0, 0

    def sequence(self) -> _Part:
        """Parse up to the end of the text or, within braces, of this alternative."""
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
        plain = PLAIN.match(self._text, self._at)
        assert plain is not None  # it matches any character
        self._at = plain.end()
        return plain.group()

    def _brace(self) -> _Part:
        bounds = RANGE.match(self._text, self._at)
        if bounds is not None:
            self._at = bounds.end()
            return _range(bounds[1], bounds[2])
        begin = self._at
        if self._depth == DEEPEST:
            raise ConfigError(f"{self._where}: more than {DEEPEST} nested braces; write a glob (*)")
        self._depth += 1
        alternatives: list[_Part] = []
        while not alternatives or self._text[self._at] == ",":
            self._at += 1
            alternatives.append(self.sequence())
            if self._at == len(self._text):
                raise ConfigError(
                    f"{self._where}: the brace of {self._text[begin:]!r} is not closed; write [{{] for a literal brace"
                )
        self._at += 1
        self._depth -= 1
        if len(alternatives) == 1:
            raise ConfigError(
                f"{self._where}: {self._text[begin : self._at]!r} is neither a range {{0..9}} nor alternatives {{a,b}}"
            )
        return _Part(
            sum(part.count for part in alternatives),
            lambda: chain.from_iterable(part.texts() for part in alternatives),
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
GLOB = re.compile(rf"(?P<folders>(?:(?<=/)|^)\*\*/)|(?P<deep>\*\*)|(?P<any>\*)|(?P<char>\?)|{CLASS}")
FIRST = re.compile(rf"[*?{{]|{CLASS}")
"""Characters that make a part of a path a pattern."""


def split_pattern(uri: str) -> tuple[str, tuple[str, ...]]:
    """Split a URI into the folder above its first pattern, and the patterns below it with their braces expanded.

    Patterns are ``*`` and ``[...]`` within a part of the path, ``**`` across parts, ``{000..127}`` and ``{a,b}``; and
    ``?`` in local paths, since it begins the options of other URIs. A URI of one shard is split into folder and name.

    Returns:
        The folder and the patterns; a URI without a pattern is returned unchanged, with no patterns.

    Raises:
        ConfigError: braces are not closed, are neither a range nor alternatives, or name too many shards; or the
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


def _unescaped(escaped: re.Match[str]) -> str:
    """Decode escaped characters of a URI, which are literal and not a pattern."""
    return glob.escape(unquote(escaped.group()))


def match(patterns: Sequence[str], objects: Sequence[ObjectInfo]) -> list[ObjectInfo]:
    """Return the objects that match the patterns, in the order of their paths, each once.

    Raises:
        ManifestError: a pattern matches no object; the message says which and how many.
        ConfigError: a pattern is invalid.
    """
    matching, missing = _search(patterns, objects)
    if missing:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise ManifestError(
            f"data.train: {len(missing)} of {len(patterns)} shards or patterns match none of {len(objects)} shards "
            f"({shown}): check the pattern, or put the shards there"
        )
    return matching


def named(patterns: Sequence[str], objects: Sequence[ObjectInfo]) -> list[ObjectInfo]:
    """Return the objects that match the patterns; a pattern may match none.

    Raises:
        ConfigError: a pattern is invalid.
    """
    return _search(patterns, objects)[0]


def _search(patterns: Sequence[str], objects: Sequence[ObjectInfo]) -> tuple[list[ObjectInfo], list[str]]:
    """Return the matching objects, and the patterns that match none."""
    ordered = sorted(objects, key=lambda info: info.path)
    paths = [info.path for info in ordered]
    numbers = {path: number for number, path in enumerate(paths)}
    chosen: set[int] = set()
    missing: list[str] = []
    for pattern in patterns:
        # The name of an object may look like a pattern.
        matching = ([numbers[pattern]] if pattern in numbers else []) + _matching(pattern, paths)
        chosen.update(matching)
        if not matching:
            missing.append(pattern)
    return [ordered[number] for number in sorted(chosen)], missing


def _matching(pattern: str, paths: list[str]) -> list[int]:
    first = GLOB.search(pattern)
    if first is None:
        return []
    # Sorted paths with a common beginning are adjacent: only these are compared.
    beginning, whole = pattern[: first.start()], _regex(pattern)
    matching = []
    for number in range(bisect_left(paths, beginning), len(paths)):
        if not paths[number].startswith(beginning):
            break
        if whole.fullmatch(paths[number]):
            matching.append(number)
    return matching


def _regex(pattern: str) -> re.Pattern[str]:
    parts, end = [], 0
    for token in GLOB.finditer(pattern):
        parts += [re.escape(pattern[end : token.start()]), _token(token, pattern)]
        end = token.end()
    return re.compile("".join([*parts, re.escape(pattern[end:])]), re.DOTALL)


def _token(token: re.Match[str], pattern: str) -> str:
    if token["members"]:
        return f"(?!/)[{'^' if token['negated'] else ''}{_members(token['members'], pattern)}]"
    simple = {"folders": "(?:.*/)?", "deep": ".*", "any": "[^/]*", "char": "[^/]"}
    return next(regex for name, regex in simple.items() if token[name])


def _members(members: str, pattern: str) -> str:
    """Return the characters and ranges of a class, each escaped."""
    parts = []
    for low, high, single in re.findall(r"(?s)(.)-(.)|(.)", members):
        if low > high:
            raise ConfigError(f"pattern {pattern!r}: the range {low}-{high} is empty; write {high}-{low}")
        parts.append(re.escape(single) if single else f"{re.escape(low)}-{re.escape(high)}")
    return "".join(parts)
