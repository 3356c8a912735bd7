"""Words counted shard by shard are the words of the whole."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from raylens.config import SourceConfig
from raylens.data import Source
from raylens.data.stats.word_counts import word_counts
from raylens.errors import ManifestError
from raylens.inputs import Tokenizer
from raylens.inputs.vocabulary import count_words
from raylens.storage import Store
from raylens.workloads.tokenizers import show_text

MakeShards = Callable[..., Store]


def here(items: list[dict[str, Any]], function: Callable[[dict[str, Any]], pa.Table]) -> Iterator[pa.Table]:
    return (function(item) for item in reversed(items))


def test_shards_add_up_to_the_whole(make_shards: MakeShards, tmp_path: Path) -> None:
    config = SourceConfig(uri=make_shards(33, per_shard=8).uri)
    source, shards = Source.open(config)
    captions = [text for shard in shards for sample in source.walk(shard) for text in sample.captions or ()]
    assert len(captions) == 33
    told: list[tuple[int, int]] = []
    found = word_counts(config, here, lambda done, of: told.append((done, of)))
    assert found == count_words(captions)
    assert told == [(done, 5) for done in range(1, 6)]
    learned, direct = Tokenizer.from_counts(found, 540), Tokenizer.train(captions, 540)
    assert learned.identity() == direct.identity()
    path = tmp_path / "tokenizer.json"
    path.write_text(learned.to_json())
    (line, cut) = show_text(path, [captions[0], "word " * 50], context=12)
    assert "<|startoftext|>" in line
    assert "12 tokens, cut" in cut


def test_a_damaged_shard_counts_as_far_as_it_goes(make_shards: MakeShards) -> None:
    store = make_shards(8, per_shard=8)
    whole = word_counts(SourceConfig(uri=store.uri), here)
    data = store.read("000000.tar")
    store.write("000000.tar", data[: len(data) // 2])
    part = word_counts(SourceConfig(uri=store.uri), here)
    assert 0 < sum(part.values()) < sum(whole.values())


def test_no_captions_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("image,caption\nx.jpg,\n")
    with pytest.raises(ManifestError, match=r"1 shards have no captions"):
        word_counts(SourceConfig(uri=str(tmp_path)), here)
