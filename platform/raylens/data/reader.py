"""A data set that can be read on this machine: its manifest, and the location of each sample."""

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from raylens.data.bijection import Ints
from raylens.data.formats import Kind, Pair, SampleLocation
from raylens.data.formats.tar import spans
from raylens.data.manifest import Manifest
from raylens.data.sample_index import local_copy, location_of, map_bytes, map_records
from raylens.data.source import Source
from raylens.errors import ManifestError, NotFoundError
from raylens.storage import open_store

if TYPE_CHECKING:
    import mmap

__all__ = ["Request", "SampleReader", "open_reader"]


@dataclass(frozen=True)
class Request:
    """Samples of one shard in ascending order, which one thread reads at a time."""

    shard: int
    samples: Ints


@dataclass(frozen=True)
class SampleReader:
    """Reads samples by number; threads may share one reader."""

    manifest: Manifest
    index: NDArray[np.void]
    texts: "mmap.mmap | bytes"

    @property
    def source(self) -> Source:
        """The data set that is read."""
        return self.manifest.source

    def keys(self, samples: list[int]) -> list[str]:
        """Return the keys of samples, which the parts of the manifest hold."""
        return [str(row["key"]) for row in self.manifest.rows(samples, ["key"])]

    def requests(self, samples: Ints) -> list[Request]:
        """Group unique, ascending sample numbers by shard."""
        shard = np.searchsorted(self.manifest.starts, samples, side="right") - 1
        cuts = np.flatnonzero(np.diff(shard)) + 1
        return [Request(self._shard_of(int(part[0])), part) for part in np.split(samples, cuts) if len(part)]

    def read(self, request: Request, *, check_hashes: bool = False) -> Iterator[tuple[int, Pair]]:
        """Yield the samples of a request, with their numbers.

        Raises:
            ManifestError: an object has changed since it was indexed; the message names it.
            StorageError: the store does not respond.
        """
        records = self.index[request.samples]
        locations = [location_of(record) for record in records]
        texts = [self._text(location) for location in locations]
        shard = self.manifest.shards[request.shard]
        pairs = self.source.format.read(self.source.store, shard, self.source.columns, locations, texts)
        for sample, record, pair in zip(request.samples.tolist(), records, pairs, strict=True):
            if check_hashes and _first_word(pair.image) != record["check"]:
                raise ManifestError(
                    f"sample {sample} in {self.source.store.describe()}/{shard.path} does not match the hash in the "
                    "manifest: restore the old shard, or start a new run with another name"
                )
            yield sample, pair

    def request_sizes(self, request: Request) -> list[int]:
        """Return the bytes of each request to the store that `read` makes; for row groups, of the images alone."""
        locations = [location_of(record) for record in self.index[request.samples]]
        if locations[0].kind is Kind.FILE:
            return [location.length for location in locations]
        if locations[0].kind is not Kind.ROW:
            return [stop - start for start, stop, _ in spans(locations)]
        groups = self.index["offset"][slice(*self.manifest.starts[request.shard : request.shard + 2])] >> 32
        lengths = self.index["length"][slice(*self.manifest.starts[request.shard : request.shard + 2])]
        return [int(lengths[groups == group].sum()) for group in np.unique(self.index["offset"][request.samples] >> 32)]

    def shard_path(self, sample: int) -> str:
        """Return the path of the shard that holds a sample."""
        return self.manifest.shards[self._shard_of(sample)].path

    def _shard_of(self, sample: int) -> int:
        return int(np.searchsorted(self.manifest.starts, sample, side="right")) - 1

    def _text(self, location: SampleLocation) -> bytes:
        if location.kind is not Kind.FILE:
            return b""
        return bytes(self.texts[location.offset : location.offset + location.caption_length])


@functools.lru_cache(maxsize=16)
def open_reader(home: str) -> SampleReader:
    """Open the data set whose manifest is stored at ``home``; the reader is cached in the process.

    Raises:
        ManifestError: the manifest is missing or damaged.
    """
    store = open_store(home)
    manifest = Manifest.load(store)
    if manifest is None:
        raise ManifestError(f"there is no manifest at {store.describe()}: index the data set again")
    try:
        files = local_copy(store, ("samples.bin", "texts.bin"), manifest.digest)
        index = map_records(files["samples.bin"])
    except (NotFoundError, ValueError) as error:
        raise ManifestError(f"manifest at {store.describe()} is damaged ({error}): delete that folder") from None
    if len(index) != len(manifest):
        raise ManifestError(
            f"{store.describe()}/samples.bin has {len(index)} records, the manifest {len(manifest)}: delete that folder"
        )
    return SampleReader(manifest, index, map_bytes(files["texts.bin"]))


def _first_word(image: bytes) -> int:
    return int.from_bytes(hashlib.sha256(image).digest()[:8], "little")
