"""A data set ready to be read on this machine: its manifest, and where each sample lies."""

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from raylens.data.bijection import Ints
from raylens.data.formats import Kind, Pair, Place
from raylens.data.formats.tar import spans
from raylens.data.manifest import Manifest
from raylens.data.sample_index import local_copy, map_bytes, map_places, place_of
from raylens.data.source import Source
from raylens.errors import ManifestError, NotFoundError
from raylens.storage import open_store

if TYPE_CHECKING:
    import mmap

__all__ = ["Opened", "Request", "open_data"]


@dataclass(frozen=True)
class Request:
    """Samples of one shard, ascending: what one thread reads at a time."""

    shard: int
    samples: Ints


@dataclass(frozen=True)
class Opened:
    """Reads samples by number. Threads may share it."""

    manifest: Manifest
    places: NDArray[np.void]
    texts: "mmap.mmap | bytes"

    @property
    def source(self) -> Source:
        """The data set."""
        return self.manifest.source

    def keys(self, samples: list[int]) -> list[str]:
        """Names of samples within their shards; looked up in the manifest's parts."""
        return [str(row["key"]) for row in self.manifest.rows(samples, ["key"])]

    def requests(self, samples: Ints) -> list[Request]:
        """Unique sample numbers, ascending, by shard."""
        shard = np.searchsorted(self.manifest.starts, samples, side="right") - 1
        cuts = np.flatnonzero(np.diff(shard)) + 1
        return [Request(self._shard_of(int(part[0])), part) for part in np.split(samples, cuts) if len(part)]

    def read(self, request: Request, *, check_hashes: bool = False) -> Iterator[tuple[int, Pair]]:
        """The samples of a request, with their numbers.

        Raises:
            ManifestError: an object is not what was indexed; names it.
            StorageError: the store does not answer.
        """
        records = self.places[request.samples]
        places = [place_of(record) for record in records]
        texts = [self._text(place) for place in places]
        shard = self.manifest.shards[request.shard]
        pairs = self.source.format.read(self.source.store, shard, self.source.columns, places, texts)
        for sample, record, pair in zip(request.samples.tolist(), records, pairs, strict=True):
            if check_hashes and _first_word(pair.image) != record["check"]:
                raise ManifestError(
                    f"sample {sample} in {self.source.store.describe()}/{shard.path} differs from the hash that it was "
                    "indexed with: put the old shard back, or start a new run with another name"
                )
            yield sample, pair

    def request_sizes(self, request: Request) -> list[int]:
        """Bytes of each request to the store that `read` makes; of a row group, the images alone."""
        places = [place_of(record) for record in self.places[request.samples]]
        if places[0].kind is Kind.FILE:
            return [place.length for place in places]
        if places[0].kind is not Kind.ROW:
            return [stop - start for start, stop, _ in spans(places)]
        groups = self.places["offset"][slice(*self.manifest.starts[request.shard : request.shard + 2])] >> 32
        lengths = self.places["length"][slice(*self.manifest.starts[request.shard : request.shard + 2])]
        return [
            int(lengths[groups == group].sum()) for group in np.unique(self.places["offset"][request.samples] >> 32)
        ]

    def shard_path(self, sample: int) -> str:
        """The shard that a sample lies in."""
        return self.manifest.shards[self._shard_of(sample)].path

    def _shard_of(self, sample: int) -> int:
        return int(np.searchsorted(self.manifest.starts, sample, side="right")) - 1

    def _text(self, place: Place) -> bytes:
        return bytes(self.texts[place.offset : place.offset + place.caption_length]) if place.kind is Kind.FILE else b""


@functools.lru_cache(maxsize=16)
def open_data(home: str) -> Opened:
    """The data set whose manifest is kept at ``home``; once a process.

    Raises:
        ManifestError: there is no manifest, or it is damaged.
    """
    store = open_store(home)
    manifest = Manifest.load(store)
    if manifest is None:
        raise ManifestError(f"there is no manifest at {store.describe()}: index the data set again")
    try:
        files = local_copy(store, ("places.bin", "texts.bin"), manifest.digest)
        places = map_places(files["places.bin"])
    except (NotFoundError, ValueError) as error:
        raise ManifestError(f"manifest at {store.describe()} is damaged ({error}): delete that folder") from None
    if len(places) != len(manifest):
        raise ManifestError(
            f"{store.describe()}/places.bin has {len(places)} records, the manifest {len(manifest)}: delete that folder"
        )
    return Opened(manifest, places, map_bytes(files["texts.bin"]))


def _first_word(image: bytes) -> int:
    return int.from_bytes(hashlib.sha256(image).digest()[:8], "little")
