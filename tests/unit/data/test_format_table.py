"""Tables that name images: what is walked is read again, and what is broken is named."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from raylens.data.formats.base import Columns, Kind, RawSample
from raylens.data.formats.files import locate
from raylens.data.formats.table import TABLE
from raylens.errors import ConfigError, ManifestError
from raylens.storage import ObjectInfo, Store, open_store

USUAL = Columns()


def picture(seed: int) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (seed % 7 + 1, 3), (seed, 2 * seed % 256, 3)).save(sink, format="PNG")
    return sink.getvalue()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """With images ``img/0.png`` to ``img/4.png``."""
    made = open_store(tmp_path / "set")
    for number in range(5):
        made.write(f"img/{number}.png", picture(number))
    return made


def walked(store: Store, path: str, columns: Columns = USUAL) -> list[RawSample]:
    return list(TABLE.walk(store, store.info(path), columns))


def walk_text(store: Store, text: str, path: str = "t.csv", columns: Columns = USUAL) -> list[RawSample]:
    store.write(path, text.encode())
    return walked(store, path, columns)


def reread(store: Store, samples: list[RawSample]) -> list[Any]:
    shard = ObjectInfo("gone.csv", 1, "v")
    pairs = TABLE.read(store, shard, USUAL, [one.location for one in samples], [one.record for one in samples])
    return [(pair.image, pair.captions) for pair in pairs]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("t.csv", "filepath,other,title\nimg/0.png,1, a \nimg/1.png,2,b\nimg/1.png,3,c\n"),
        ("t.tsv", "\ufeffImage\tother\tCaption\r\nimg/0.png\t1\ta\r\n./img//1.png\t2\tb\r\nimg/1.png\t3\tc"),
        (
            "t.jsonl",
            '{"file_name": "img/0.png", "text": "a"}\n\n{"file_name": "img/1.png", "text": ["b", " ", "c"]}\n',
        ),
        ("img/t.csv", "path,caption\n0.png,a\n\n1.png,b\n1.png,c\n"),
    ],
)
def test_each_kind_of_table(store: Store, path: str, text: str) -> None:
    samples = walk_text(store, text, path)
    assert [(one.key, one.image, one.captions) for one in samples] == [
        ("img/0", picture(0), ("a",)),
        ("img/1", picture(1), ("b", "c")),
    ]
    assert {one.location.kind for one in samples} == {Kind.FILE}
    assert json.loads(samples[1].record) == {"image": "img/1.png", "captions": ["b", "c"]}
    assert reread(store, samples) == [(picture(0), ("a",)), (picture(1), ("b", "c"))]


CAPTIONS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1, max_size=12)


@given(data=st.data(), captions=st.lists(CAPTIONS, min_size=1, max_size=40), suffix=st.sampled_from(["csv", "jsonl"]))
def test_any_ascending_choice_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, captions: list[str], suffix: str
) -> None:
    store = open_store(tmp_path_factory.mktemp("set"))
    images = [picture(number) for number in range(len(captions))]
    for number, image in enumerate(images):
        store.write(f"{number}.png", image)
    sink = io.StringIO(newline="")
    rows = [{"image": f"{number}.png", "caption": caption} for number, caption in enumerate(captions)]
    if suffix == "csv":
        writer = csv.DictWriter(sink, ["image", "caption"])
        writer.writeheader()
        writer.writerows(rows)
    else:
        sink.writelines(json.dumps(row) + "\n" for row in rows)
    samples = walk_text(store, sink.getvalue(), f"t.{suffix}")
    stripped = [(caption.strip(),) if caption.strip() else () for caption in captions]
    assert [one.captions for one in samples] == stripped
    chosen = sorted(data.draw(st.sets(st.integers(0, len(captions) - 1))))
    wanted = [(images[number], stripped[number] or ("",)) for number in chosen]
    assert reread(store, [samples[number] for number in chosen]) == wanted


def test_a_newline_in_quotes_belongs_to_the_caption(store: Store) -> None:
    (sample, after) = walk_text(store, 'image,caption\nimg/0.png,"two\nlines, ""quoted"""\nbroken\n')
    assert sample.captions == ('two\nlines, "quoted"',)
    assert (after.key, after.reason) == ("line 4", "malformed row")


def test_quotes_that_nobody_closes_hide_no_rows(store: Store) -> None:
    lines = ['img/0.png,"open', "img/1.png,b", 'img/2.png,"again', "img/3.png,d"]
    text = "\n".join(["image,caption", *lines])
    tsv = walk_text(store, text.replace(",", "\t"), "t.tsv")
    assert [one.captions for one in tsv] == [('"open',), ("b",), ('"again',), ("d",)]
    assert [(one.key, one.reason) for one in walk_text(store, text)] == [
        ("line 2", "malformed row"),
        ("img/1", None),
        ("line 4", "malformed row"),
        ("img/3", None),
    ]


def test_a_very_long_caption_in_quotes_makes_no_rows(store: Store) -> None:
    long = "two, words\nimg, words\n" * 10_000
    first, second = walk_text(store, f'image,caption\nimg/0.png,"{long}"\nimg/1.png,b\n')
    assert (first.captions, second.captions) == ((long.strip(),), ("b",))
    rows = walk_text(store, 'image,caption\nimg/0.png,"' + "img/2.png,wrong\n" * 10_000 + '"\nimg/1.png,b\n')
    assert [one.captions for one in rows if one.reason is None] == [("b",)]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("t.csv", "image,caption\nimg/0.png\nimg/1.png,b\nimg/2.png,c,d\n,e\n"),
        ("t.csv", 'image,caption\n"img/0.png"x,a\nimg/1.png,b\nimg/2.png,"c"c\nimg/3.png,"never closed'),
        ("t.jsonl", '{"image": "img/0.png"\n{"image": "img/1.png", "caption": "b"}\n["img/2.png"]\n{"image": 7}\n'),
        ("t.jsonl", "[" * 100_000 + '\n{"image": "img/1.png", "caption": "b"}\n{"caption": "x"}\n{"image": " "}'),
    ],
)
def test_malformed_rows_are_named_by_their_lines(store: Store, path: str, text: str) -> None:
    first = 2 if path.endswith("csv") else 1
    samples = walk_text(store, text, path)
    assert [one.key for one in samples] == [f"line {first}", "img/1", f"line {first + 2}", f"line {first + 3}"]
    assert [one.reason for one in samples] == ["malformed row", None, "malformed row", "malformed row"]
    assert [one.image is None for one in samples] == [True, False, True, True]


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("img/none.png", "image file is missing"),
        ("img", "image file is missing"),
        ("/nowhere/at/all.png", "image file is missing"),
        ("../set/img/0.png", "image path leaves its folder by '..'"),
        ("file:///a/%2e%2E/b.png", "image path leaves its folder by '..'"),
        ("https://example.org/a.png", "image is a web address: download with img2dataset first"),
        ("ftp://example.org/a.png", "image path cannot be used"),
        ("s3://bucket-without-a-key", "image path cannot be used"),
        ("img\\0.png", "image path cannot be used"),
    ],
)
def test_images_that_cannot_be_had_have_a_reason(store: Store, image: str, reason: str) -> None:
    before, sample, after = walk_text(store, f"image,caption\nimg/0.png,a\n{image},b\nimg/1.png,c\n")
    assert (sample.image, sample.reason) == (None, reason)
    assert before.image
    assert after.image


@pytest.mark.parametrize("image", ["n" * 300 + ".png", "img/" + "n" * 5000, "/" + "n" * 300 + "/a.png", "ring.png"])
def test_a_path_that_can_be_no_file_is_a_missing_image(store: Store, image: str) -> None:
    (Path(store.uri) / "ring.png").symlink_to("ring.png")
    samples = walk_text(store, f"image,caption\nimg/0.png,a\n{image},b\nimg/1.png,c\n")
    assert [one.reason for one in samples] == [None, "image file is missing", None]


def test_images_elsewhere_are_read_by_path_and_uri(store: Store, tmp_path: Path) -> None:
    (tmp_path / "a b.png").write_bytes(picture(9))
    samples = walk_text(store, f"image,caption\n{tmp_path}/a b.png,a\nfile://{tmp_path}/a%20b.png,b\n")
    assert reread(store, samples) == [(picture(9), ("a",)), (picture(9), ("b",))]


MINE, OWN = "region=r&endpoint_override=http://host:1", "region=q&endpoint_override="


@pytest.mark.parametrize(
    ("uri", "image", "where", "name"),
    [
        ("/d", "a/b.png", "/d", "a/b.png"),
        ("/d", "/b.png", "/", "b.png"),
        ("/d", "file:///b%20c.png", "/", "b c.png"),
        (f"s3://bucket/p?{MINE}", "s3://other/q/x.png", f"s3://other/q?{MINE}", "x.png"),
        (f"s3://bucket/p?{MINE}", f"s3://other/x.png?{OWN}", f"s3://other?{OWN}", "x.png"),
    ],
)  # fmt: skip
def test_where_an_image_is(uri: str, image: str, where: str, name: str) -> None:
    found, path = locate(open_store(uri), image)
    assert (found.uri, path) == (open_store(where).uri, name)


def test_a_uri_without_a_path_is_refused() -> None:
    with pytest.raises(ConfigError, match="bucket/path"):
        locate(open_store("/d"), "s3://bucket")


def test_keys_are_unique(store: Store) -> None:
    text = "image,caption\nimg/0.png,a\nimg/1.png,b\nimg/0.png,c\nimg/0#2.png,d\nimg/0.png,e\n"
    assert [one.key for one in walk_text(store, text)] == ["img/0", "img/1", "img/0#2", "img/0#2#2", "img/0#3"]


def test_halves_of_characters_are_replaced(store: Store) -> None:
    (sample,) = walk_text(store, '{"image": "img/0.png", "caption": "a \\ud800"}', "t.jsonl")
    assert reread(store, [sample]) == [(picture(0), ("a ?",))]


def test_captions_of_another_type_are_none(store: Store) -> None:
    text = '{"image": "img/0.png", "caption": 7}\n{"image": "img/1.png"}\n{"image": "img/2.png", "caption": ""}\n'
    with pytest.raises(ManifestError, match="caption_column"):
        walk_text(store, text.partition("\n")[2], "t.jsonl")
    assert [one.captions for one in walk_text(store, text, "t.jsonl")] == [None, None, ()]


@pytest.mark.parametrize(
    ("text", "columns", "says"),
    [
        ("", Columns(), "the header line is missing"),
        ("\n", Columns(), "the header line is missing"),
        ('"open', Columns(), "header line has a quote"),
        ("a,caption\nx,y\n", Columns(), "set image_column; its columns are a, caption"),
        ("image,b\nx,y\n", Columns(), "set caption_column; its columns are image, b"),
        ("image,caption\nx,y\n", Columns("picture"), "image_column = 'picture' is not among its columns"),
        ("url,caption\nx,y\n", Columns(), "'url' with img2dataset first"),
    ],
)
def test_missing_columns_are_named(store: Store, text: str, columns: Columns, says: str) -> None:
    with pytest.raises(ManifestError, match=r"table t\.csv of .*" + says) as refused:
        walk_text(store, text, columns=columns)
    assert "\n" not in str(refused.value)


def test_given_columns_come_first(store: Store) -> None:
    (sample,) = walk_text(store, "image,x,caption,y\nno,img/0.png,no,yes\n", columns=Columns("x", "y"))
    assert (sample.image, sample.captions) == (picture(0), ("yes",))


def test_an_image_that_changed_is_an_error(store: Store) -> None:
    samples = walk_text(store, "image,caption\nimg/0.png,a\nimg/1.png,b\nimg/2.png,c\n")
    store.write("img/1.png", b"shorter")
    pairs = TABLE.read(
        store, store.info("t.csv"), USUAL, [one.location for one in samples], [one.record for one in samples]
    )
    assert next(pairs).image == picture(0)
    with pytest.raises(ManifestError, match=r"image img/1\.png of .*/set has changed .* 7 bytes"):
        next(pairs)
    store.delete("img/1.png")
    with pytest.raises(ManifestError, match=r"image img/1\.png of .*/set has been removed"):
        reread(store, samples)


def test_walking_many_images_keeps_their_order(store: Store) -> None:
    rows = "".join(f"img/{number % 5}.png,{number}\n" for number in range(200))
    samples = walk_text(store, "image,caption\n" + rows)
    assert [(one.image, one.captions) for one in samples] == [
        (picture(number % 5), (str(number),)) for number in range(200)
    ]


def test_select_leaves_metadata_alone() -> None:
    def named(*paths: str) -> list[str]:
        return [info.path for info in TABLE.select([ObjectInfo(path, 1, "v") for path in paths])]

    assert named("a.csv", "b.tsv", "c/d.jsonl", "e.json", "f.png") == ["a.csv", "b.tsv", "c/d.jsonl"]
    assert named("a.csv", "b.tar") == []
    assert named("a.csv", "b.parquet") == []
