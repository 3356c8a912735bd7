"""Counting the words of all captions of a data set in parallel, to train a tokenizer."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from raylens.config import SourceConfig
from raylens.data.index import Mapper
from raylens.data.source import Source
from raylens.errors import DamagedError, ManifestError
from raylens.inputs import count_words
from raylens.storage import ObjectInfo

__all__ = ["word_counts"]

COUNTS = pa.schema([("word", pa.string()), ("count", pa.int64())])


def word_counts(
    config: SourceConfig, run_parallel: Mapper, progress: Callable[[int, int], None] | None = None
) -> Counter[str]:
    """Count each word in the captions, including all captions of a sample.

    Every shard is read once, by a task of its own; tasks return only counts.

    Args:
        config: the data set; no manifest is needed.
        run_parallel: applies a function to items on a cluster (see `raylens.data.stream.ray_map`).
        progress: called with the shards done and the total.

    Raises:
        ManifestError: there is no shard, or no shard has a caption.
    """
    source, shards = Source.open(config)
    items = [
        {"text": json.dumps({"source": source.as_dict(), "shard": [shard.path, shard.size, shard.version]})}
        for shard in shards
    ]
    words: Counter[str] = Counter()
    for done, table in enumerate(run_parallel(items, _count_shard), 1):
        words.update(dict(zip(table["word"].to_pylist(), table["count"].to_pylist(), strict=True)))
        if progress:
            progress(done, len(shards))
    if not words:
        raise ManifestError(
            f"data set {config.uri}: its {len(shards)} shards have no captions to learn from: check data.train"
        )
    return words


def _count_shard(item: dict[str, Any]) -> pa.Table:
    job = json.loads(item["text"])
    source, shard = Source.from_dict(job["source"]), ObjectInfo(*job["shard"])
    counts = count_words(_captions(source, shard))
    return pa.Table.from_pydict({"word": list(counts), "count": list(counts.values())}, schema=COUNTS)


def _captions(source: Source, shard: ObjectInfo) -> Iterator[str]:
    try:
        for sample in source.walk(shard):
            yield from (caption for caption in sample.captions or () if _encodable(caption))
    except DamagedError:
        return  # samples before the damage count, as in the manifest


def _encodable(caption: str) -> bool:
    try:
        caption.encode()
    except UnicodeEncodeError:
        return False
    return True
