"""Labelled shards: samples with a ``label`` in their json, the index of a class in the ``classes.json`` beside them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from raylens.config import SourceConfig
from raylens.data import Source
from raylens.errors import NotFoundError
from raylens.evaluate.examples import CLASSES_FILE, ClassList, LabelledImage
from raylens.storage import ObjectInfo

__all__ = ["LabelledShards"]


@dataclass(frozen=True)
class LabelledShards:
    """A classification task in shards; travels by pickle."""

    source: Source
    shards: tuple[ObjectInfo, ...]
    classes: ClassList

    @classmethod
    def open(cls, config: SourceConfig) -> Self:
        """Find the shards and read their classes.

        Raises:
            NotFoundError: there is no ``classes.json``.
            ManifestError: there are no shards.
            ConfigError: the URI or the classes cannot be used.
        """
        source, shards = Source.open(config)
        try:
            classes = ClassList.read(source.store)
        except NotFoundError as error:
            raise NotFoundError(
                f"{error}. Labelled shards need a {CLASSES_FILE} beside them: name, classes and prompt templates"
            ) from None
        return cls(source, tuple(shards), classes)

    def samples(self, shard: ObjectInfo) -> Iterator[tuple[LabelledImage, str | None]]:
        """Each image of a shard with its label, and its caption if it has one.

        Raises:
            DataError: a sample has no label, or one that is no class.
        """
        for sample in self.source.walk(shard):
            uid = f"{shard.path}/{sample.key}"
            label = self.classes.check_label(sample.meta.get("label"), f"{self.source.store.describe()}/{uid}")
            yield LabelledImage(uid, sample.image or b"", label), sample.caption
