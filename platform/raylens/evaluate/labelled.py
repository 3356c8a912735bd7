"""Labelled data: classes with their prompts, and shards whose samples have the index of a class as ``label``."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from raylens.config import Node, SourceConfig, validated
from raylens.data import Source
from raylens.errors import ConfigError, DataError, NotFoundError
from raylens.inputs import Tokenizer, check_class_names, fill_templates

if TYPE_CHECKING:
    from raylens.storage import ObjectInfo, Store

__all__ = ["CLASSES_FILE", "ClassList", "EvaluationSet", "LabelledImage", "LabelledShards", "lint_prompts"]

CLASSES_FILE = "classes.json"
SHOWN = 3
"""The most prompts or classes that a message names."""


@dataclass(frozen=True)
class LabelledImage:
    """An image file and the index of its true class."""

    uid: str
    """The image's identifier, unique within its evaluation set."""
    image: bytes
    """The bytes of the image file, for `raylens.inputs.decode_image`."""
    label: int


@dataclass(frozen=True)
class ClassList:
    """The classes of a task and the templates of their prompts, in a file of their own, so that they have versions.

    Raises:
        ConfigError: there is no name, or there are fewer than two classes; a class is empty or repeated; a template
            has not exactly one ``{}``.
    """

    name: str
    classes: tuple[str, ...]
    templates: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ConfigError(f"name = {self.name!r}: an evaluation set needs a name")
        check_class_names(self.classes)
        fill_templates(self.classes, self.templates)

    def prompts(self) -> list[list[str]]:
        """Return each class name in each template: ``C`` lists of ``P`` prompts."""
        return fill_templates(self.classes, self.templates)

    def check_label(self, label: object, name: str) -> int:
        """Return the label of an image if it is the index of a class.

        Args:
            label: the label of the image, of any type.
            name: the name of the image in messages.

        Raises:
            DataError: the label is not a whole number, or there is no such class.
        """
        if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label < len(self.classes):
            raise DataError(
                f"{name} has label {label!r}: {self.name} has classes 0 to {len(self.classes) - 1}, and each sample "
                "needs one of these whole numbers as 'label' in its json"
            )
        return label

    def with_images(self, images: Iterable[LabelledImage]) -> "EvaluationSet":
        """Return the same task with images to classify."""
        return EvaluationSet(self.name, self.classes, self.templates, images)

    def to_json(self) -> str:
        """Return the text of ``classes.json``."""
        fields = {"name": self.name, "classes": self.classes, "templates": self.templates}
        return json.dumps(fields, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, source: str = CLASSES_FILE) -> Self:
        """Read the text that `to_json` writes; ``source`` names the file in messages.

        Raises:
            ConfigError: the text is not JSON, a key is unknown or missing, or classes or templates cannot be used.
        """
        try:
            fields = json.loads(text)
        except ValueError as error:  # this includes bytes that are not UTF-8
            raise ConfigError(f"{source}: not valid JSON: {error}") from None
        if not isinstance(fields, dict):
            raise ConfigError(f"{source}: expected an object with name, classes and templates")
        try:
            return cls(**dict(validated(_ClassesFile, fields)))
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from None

    @classmethod
    def read(cls, store: "Store", path: str = CLASSES_FILE) -> Self:
        """Read the file of classes from a store.

        Raises:
            NotFoundError: there is no such file.
            ConfigError: see `from_json`.
        """
        return cls.from_json(store.read(path), f"{store.describe()}/{path}")

    def write(self, store: "Store", path: str = CLASSES_FILE) -> None:
        """Write the file of classes into a store."""
        store.write(path, self.to_json().encode())


@dataclass(frozen=True)
class EvaluationSet(ClassList):
    """A classification task with its images, which an evaluation reads once, in their order."""

    images: Iterable[LabelledImage]


@dataclass(frozen=True)
class LabelledShards:
    """A classification task in shards, which can be pickled."""

    source: Source
    shards: "tuple[ObjectInfo, ...]"
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

    def samples(self, shard: "ObjectInfo") -> Iterator[tuple[LabelledImage, str | None]]:
        """Yield each image of a shard with its label, and its caption if it has one.

        Raises:
            DataError: a sample has no label, or its label is not the index of a class.
        """
        for sample in self.source.walk(shard):
            uid = f"{shard.path}/{sample.key}"
            label = self.classes.check_label(sample.meta.get("label"), f"{self.source.store.describe()}/{uid}")
            yield LabelledImage(uid, sample.image or b"", label), sample.caption


class _ClassesFile(Node):
    name: str
    classes: tuple[str, ...]
    templates: tuple[str, ...]


def lint_prompts(classes: ClassList, tokenizer: Tokenizer, context: int) -> tuple[str, ...]:
    """Return warnings about prompts that the tokenizer truncates, or encodes alike for several classes.

    Truncated prompts lose their end, which is often the class name; classes whose prompts have the same token ids
    cannot be distinguished.
    """
    prompts = classes.prompts()
    flat = [prompt for of_class in prompts for prompt in of_class]
    ids_PT, truncated_P = tokenizer(flat, context)
    complaints = []
    cut = [prompt for prompt, truncated in zip(flat, truncated_P, strict=True) if truncated]
    if cut:
        complaints.append(
            f"{len(cut)} of {len(flat)} prompts are longer than the context of {context} tokens and were truncated: "
            f"{_listed(cut)}"
        )
    rows = ids_PT.reshape(len(prompts), -1)
    by_ids: dict[bytes, list[str]] = {}
    for name, row in zip(classes.classes, rows, strict=True):
        by_ids.setdefault(row.tobytes(), []).append(name)
    complaints += [
        f"classes {_listed(names)} have the same token ids in every prompt: their images all count as wrong"
        for names in by_ids.values()
        if len(names) > 1
    ]
    return tuple(complaints)


def _listed(items: Sequence[str]) -> str:
    shown = ", ".join(repr(item) for item in items[:SHOWN])
    return shown if len(items) <= SHOWN else f"{shown} and {len(items) - SHOWN} more"
