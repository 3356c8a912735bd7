"""The work of ``raylens tokenizer``: learning a tokenizer, and showing its tokens."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from raylens.cluster import session
from raylens.data import ray_map
from raylens.data.stats.word_counts import word_counts
from raylens.inputs import Tokenizer
from raylens.report import percent_text
from raylens.workloads.lines import Lines
from raylens.workloads.pages.data import shard_progress, source_config

__all__ = ["show_text", "train_text"]


def train_text(
    uri: str, out: Path, vocab: int, kind: str, caption_column: str | None, address: str | None, num_cpus: int | None
) -> Iterator[str]:
    """Count words, learn merges, write the tokenizer, and yield lines about how much of the corpus it covers.

    Raises:
        ManifestError: the data set has no captions.
    """
    source = source_config(uri, kind, None, caption_column)
    with session(address, num_cpus, say=Lines().say), shard_progress("counting") as progress:
        words = word_counts(source, ray_map, progress)
    yield f"{sum(words.values()):,} words, {len(words):,} different ones"
    tokenizer = Tokenizer.from_counts(words, vocab)
    out.write_text(tokenizer.to_json(), encoding="utf-8")
    common = [word for word, _ in words.most_common(1000)]
    whole = sum(tokenizer.count(word) == 1 for word in common) / len(common)
    yield (
        f"{tokenizer.vocab_size:,} tokens in {out}; {percent_text(whole, 0)} of the {len(common):,} "
        "commonest words are one token"
    )


def show_text(path: Path, texts: Sequence[str], context: int) -> Iterator[str]:
    """Yield a line with the IDs and tokens of each text."""
    tokenizer = Tokenizer.from_file(path)
    ids_BT, truncated_B = tokenizer(texts, context)
    for row, cut in zip(ids_BT.tolist(), truncated_B.tolist(), strict=True):
        ids = row[: row.index(tokenizer.end_id) + 1]
        words = " ".join(tokenizer.token(number) for number in ids)
        yield f"{len(ids)} tokens{', cut' if cut else ''}: {' '.join(map(str, ids))}   {words}"
