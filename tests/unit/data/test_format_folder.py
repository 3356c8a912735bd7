"""Folders of classes: what is walked is read again."""

import io
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from raylens.data.formats.base import Columns, Kind, RawSample
from raylens.data.formats.folder import FOLDER
from raylens.errors import ManifestError
from raylens.storage import ObjectInfo, Store, open_store

USUAL = Columns()
PATHS = (
    "cat/b.png", "cat/a.JPG", "cat/z/deep/c.jpeg", "cat/note.txt", "cat_tree/a.webp", "cat_tree/a.png",
    "big_red_dog/x.png", "empty/readme.md", "top.png",
)  # fmt: skip


def picture(seed: int) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (seed % 7 + 1, seed + 1), (seed, 2, 3)).save(sink, format="PNG")
    return sink.getvalue()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return filled(tmp_path_factory.mktemp("classes"))


def filled(folder: Path) -> Store:
    made = open_store(folder)
    for number, path in enumerate(PATHS):
        made.write(path, picture(number))
    return made


def walked(store: Store) -> list[RawSample]:
    return [sample for shard in FOLDER.select(store.list()) for sample in FOLDER.walk(store, shard, USUAL)]


def test_each_class_is_a_shard(store: Store) -> None:
    shards = FOLDER.select(store.list())
    assert [shard.path for shard in shards] == ["big_red_dog", "cat", "cat_tree"]
    assert shards[1].size == sum(len(picture(number)) for number in range(3))
    assert all(len(shard.version) == 16 for shard in shards)


def test_walk_gives_images_in_path_order_with_the_class_for_a_caption(store: Store) -> None:
    samples = walked(store)
    assert [(one.key, one.captions) for one in samples] == [
        ("big_red_dog/x", ("big red dog",)),
        ("cat/a", ("cat",)),
        ("cat/b", ("cat",)),
        ("cat/z/deep/c", ("cat",)),
        ("cat_tree/a", ("cat tree",)),
        ("cat_tree/a#2", ("cat tree",)),
    ]
    assert [one.image for one in samples] == [picture(number) for number in (6, 1, 0, 2, 5, 4)]
    assert {one.location.kind for one in samples} == {Kind.FILE}
    assert json.loads(samples[0].record) == {"image": "big_red_dog/x.png", "captions": ["big red dog"]}


@given(chosen=st.sets(st.integers(0, 5)))
def test_any_ascending_choice_is_read_again(store: Store, chosen: set[int]) -> None:
    samples = walked(store)
    some = [samples[number] for number in sorted(chosen)]
    pairs = FOLDER.read(
        store, ObjectInfo("cat", 1, "v"), USUAL, [one.location for one in some], [one.record for one in some]
    )
    assert [(pair.image, pair.captions) for pair in pairs] == [(one.image, one.captions) for one in some]


@pytest.mark.parametrize("path", ["cat/b.png", "cat/new.png", "cat/z/deep/c.jpeg"])
def test_a_version_covers_each_image_of_the_class(tmp_path: Path, path: str) -> None:
    store = filled(tmp_path)
    before = {shard.path: shard.version for shard in FOLDER.select(store.list())}
    store.write(path, picture(99))
    after = {shard.path: shard.version for shard in FOLDER.select(store.list())}
    assert {name for name in before if before[name] != after[name]} == {"cat"}


def test_what_is_no_image_does_not_change_a_version(tmp_path: Path) -> None:
    store = filled(tmp_path)
    before = FOLDER.select(store.list())
    store.write("cat/note.txt", b"other")
    assert FOLDER.select(store.list()) == before


def test_images_at_the_top_alone_have_no_class(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.write("a.png", picture(1))
    assert FOLDER.select(store.list()) == []


def test_a_folder_that_changes_before_it_is_walked_is_an_error(tmp_path: Path) -> None:
    store = filled(tmp_path)
    shards = FOLDER.select(store.list())
    store.delete("cat/b.png")
    with pytest.raises(ManifestError, match=r"class folder cat of .* changed while it was indexed"):
        list(FOLDER.walk(store, shards[1], USUAL))


def test_an_image_that_changed_is_an_error(tmp_path: Path) -> None:
    store = filled(tmp_path)
    samples = walked(store)
    store.write("cat/b.png", b"x")
    with pytest.raises(ManifestError, match=r"image cat/b\.png of .* has changed"):
        list(FOLDER.read(store, FOLDER.select(store.list())[1], USUAL, [samples[2].location], [samples[2].record]))


def test_a_name_that_is_not_text_is_a_reason(tmp_path: Path) -> None:
    store = filled(tmp_path)
    with (tmp_path / "cat" / os.fsdecode(b"\xff.png")).open("wb") as sink:
        sink.write(picture(1))
    last = list(FOLDER.walk(store, FOLDER.select(store.list())[1], USUAL))[-1]
    assert (last.key, last.reason, last.image) == ("cat/?", "image path is not UTF-8", None)


def test_a_class_without_a_name_has_no_caption(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.write("__/a.png", picture(1))
    assert [one.captions for one in walked(store)] == [()]


def test_what_is_hidden_is_neither_class_nor_image(tmp_path: Path) -> None:
    store = filled(tmp_path)
    before = FOLDER.select(store.list())
    for path in (
        ".ipynb_checkpoints/a-checkpoint.png", ".git/x/a.png", "__MACOSX/cat/a.png", "cat/._a.png", "cat/.hidden.png",
        "cat/.ipynb_checkpoints/a.png", "cat/__MACOSX/._a.png",
    ):  # fmt: skip
        store.write(path, picture(1))
    assert FOLDER.select(store.list()) == before
    assert len(walked(store)) == 6


def test_links_to_classes_are_classes_and_lead_nowhere_twice(tmp_path: Path) -> None:
    store = filled(tmp_path / "set")
    filled(tmp_path / "other")
    (tmp_path / "set" / "dog").symlink_to(tmp_path / "other" / "cat")
    (tmp_path / "set" / "cat" / "all").symlink_to(tmp_path / "set")
    (tmp_path / "other" / "cat" / "back").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "round").symlink_to("round")
    keys = [one.key for one in walked(store)]
    assert [key for key in keys if key.startswith("dog/")] == ["dog/a", "dog/b", "dog/z/deep/c"]
    assert len(keys) == 9
