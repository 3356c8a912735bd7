"""Globs and braces in the URIs of data sets."""

import contextlib
import fnmatch
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylens.data.patterns import expand, match, split_pattern
from raylens.errors import ConfigError, ManifestError
from raylens.storage import ObjectInfo


def objects(*paths: str) -> list[ObjectInfo]:
    return [ObjectInfo(path, 1, "v") for path in paths]


def matched(pattern: str, *paths: str) -> list[str]:
    return [info.path for info in match([pattern], objects(*paths))]


@pytest.mark.parametrize(
    ("uri", "base", "patterns"),
    [
        ("s3://b/p/{00..02}.tar?region=x", "s3://b/p?region=x", ("00.tar", "01.tar", "02.tar")),
        ("s3://b/{train,val}/x.tar", "s3://b", ("train/x.tar", "val/x.tar")),
        ("gs://b/p/**/*.parquet", "gs://b/p", ("**/*.parquet",)),
        ("/data/{a/b,c}-?.tar", "/data", ("a/b-?.tar", "c-?.tar")),
        ("/*.tar", "/", ("*.tar",)),
        ("*.tar", ".", ("*.tar",)),
        ("file:///[ab].tar", "file:///", ("[ab].tar",)),
        ("file:///d/x%20y%2A/p%2A-{1..2}.tar", "file:///d/x%20y%2A", ("p[*]-1.tar", "p[*]-2.tar")),
        ("s3://b/p/x.tar?region=x", "s3://b/p?region=x", ("x.tar",)),
        ("s3://b/x%20y.parquet", "s3://b", ("x y.parquet",)),
        ("table.csv", ".", ("table.csv",)),
        ("/table.jsonl", "/", ("table.jsonl",)),
        ("data/train.tsv", "data", ("train.tsv",)),
        ("s3://b/p?region=x", "s3://b/p?region=x", ()),
        ("/data/shards", "/data/shards", ()),
        ("~/what}ever", "~/what}ever", ()),
    ],
)
def test_a_uri_is_split_above_its_first_pattern(uri: str, base: str, patterns: tuple[str, ...]) -> None:
    assert split_pattern(uri) == (base, patterns)


@given(first=st.integers(0, 300), last=st.integers(0, 300), width=st.integers(1, 5))
def test_ranges_are_those_of_a_plain_count(first: int, last: int, width: int) -> None:
    ends = [str(first).zfill(width), str(last).zfill(width)]
    pad = max(map(len, ends)) if any(end[0] == "0" and len(end) > 1 for end in ends) else 0
    numbers = [first]
    while numbers[-1] != last:
        numbers.append(numbers[-1] + (1 if last > first else -1))
    naive = tuple("p" + "0" * (pad - len(str(number))) + str(number) + ".tar" for number in numbers)
    assert expand(f"p{{{ends[0]}..{ends[1]}}}.tar", "here") == naive


TREES = st.recursive(
    st.text("abc-/.", max_size=3),
    lambda inner: st.one_of(st.lists(inner, min_size=2, max_size=3), st.tuples(inner, inner)),
    max_leaves=8,
)


@given(TREES)
def test_nested_alternatives_are_those_of_a_plain_walk(tree: object) -> None:
    def written(node: object) -> str:
        if isinstance(node, str):
            return node
        assert isinstance(node, list | tuple)
        return "{" + ",".join(map(written, node)) + "}" if isinstance(node, list) else "".join(map(written, node))

    def naive(node: object) -> list[str]:
        if isinstance(node, str):
            return [node]
        assert isinstance(node, list | tuple)
        if isinstance(node, list):
            return [text for one in node for text in naive(one)]
        return [left + right for left in naive(node[0]) for right in naive(node[1])]

    assert list(expand(written(tree), "here")) == naive(tree)


@given(st.text("ab{},.0[]1/*", max_size=30))
def test_any_text_is_expanded_or_refused(text: str) -> None:
    refused = contextlib.suppress(ConfigError) if "{" in text else contextlib.nullcontext()
    with refused:
        found = expand(text, "here")
        assert found
        assert "{" in text or found == (text,)


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("d/{0..1000000}.tar", "1000001 names, more than 1000000"),
        ("d/{0..999999999999999999}.tar", "1000000000000000000 names"),
        ("d/{0..999}{0..999}{0..1}.tar", "2000000 names"),
        ("d/{00..03.tar", "is not closed"),
        ("d/{a}.tar", r"'\{a\}' is neither a range \{0\.\.9\}"),
        ("d/{a..c}.tar", "is neither"),
        ("d/" + "{a," * 5000, "more than 20"),
        ("s3://{a,b}/x.tar", "the bucket cannot be a pattern"),
    ],
)
def test_braces_that_make_no_sense_are_refused(uri: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as refused:
        split_pattern(uri)
    assert "\n" not in str(refused.value)


def test_what_is_secret_in_a_uri_is_not_shown() -> None:
    with pytest.raises(ConfigError) as refused:
        split_pattern("s3://b/{a}.tar?endpoint_override=http://secret")
    assert "secret" not in str(refused.value)


def test_many_shards_are_matched_at_once() -> None:
    count = 200_000
    patterns = [f"{number:06d}.tar" for number in range(count)]
    started = time.monotonic()
    assert len(match(patterns, objects(*reversed(patterns)))) == count
    many = [f"{number:03d}/*.tar" for number in range(500)]
    assert len(match(many, objects(*(f"{number % 500:03d}/{number:06d}.tar" for number in range(count))))) == count
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("*.tar", ["a.tar", ".tar"], ["d/a.tar", "a.tar.bak"]),
        ("**/*.tar", ["a.tar", "d/a.tar", "d/e/a.tar"], ["d/a.tas"]),
        ("d/**", ["d/a", "d/e/a"], ["e/a"]),
        ("d**", ["d", "dx/a"], ["e"]),
        ("[a-c]?.tar", ["b1.tar"], ["d1.tar", "b.tar", "b/.tar"]),
        ("[!a]x", ["bx"], ["ax", "/x"]),
        ("[]a]", ["]", "a"], ["b"]),
        ("[a&&b|~-]", ["&", "~", "-", "|"], ["c"]),
        ("x[+-/]y", ["x+y", "x.y"], ["x/y"]),
        ("a[1", ["a[1"], ["a1"]),
        ("a[1].tar", ["a[1].tar", "a1.tar"], ["a2.tar"]),
    ],
)
def test_globs(pattern: str, yes: list[str], no: list[str]) -> None:
    assert matched(pattern, *yes, *no) == sorted(yes)


PARTS = st.text("ab.", min_size=1, max_size=3)
GLOBS = st.text("ab.*?", min_size=1, max_size=3).filter(lambda part: "**" not in part)


def naive_match(globs: list[str], parts: list[str]) -> bool:
    if not globs or not parts:
        return not globs and not parts
    if globs[0] == "**":
        return naive_match(globs[1:], parts) or (len(parts) > 1 and naive_match(globs, parts[1:]))
    return fnmatch.fnmatchcase(parts[0], globs[0]) and naive_match(globs[1:], parts[1:])


@given(
    st.lists(st.one_of(GLOBS, st.just("**")), max_size=3).flatmap(lambda some: GLOBS.map(lambda last: [*some, last])),
    st.lists(st.lists(PARTS, min_size=1, max_size=4), min_size=1, max_size=8, unique_by=tuple),
)
def test_globs_are_those_of_each_part(globs: list[str], paths: list[list[str]]) -> None:
    wanted = sorted("/".join(path) for path in paths if naive_match(globs, path))
    named = objects(*("/".join(path) for path in paths))
    if wanted:
        assert [info.path for info in match(["/".join(globs)], named)] == wanted
    else:
        with pytest.raises(ManifestError):
            match(["/".join(globs)], named)


def test_each_shard_comes_once_in_path_order() -> None:
    assert [info.path for info in match(["c", "*", "a"], objects("c", "b", "a"))] == ["a", "b", "c"]


def test_missing_shards_are_named_and_counted() -> None:
    with pytest.raises(ManifestError, match=re.escape("(1, 2, 3, ...)")):
        match(["0", "1", "2", "3", "4"], objects("0"))
    with pytest.raises(ManifestError, match=re.escape("(val/*)")):
        match(["train/*", "val/*"], objects("train/a"))


def test_an_empty_range_in_a_class_is_refused() -> None:
    with pytest.raises(ConfigError, match="the range z-a is empty; write a-z"):
        match(["[z-a]"], objects("a"))
