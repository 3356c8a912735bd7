"""The bundle: everything that turns an image or a text into an embedding, and nothing else.

It is the only interface between training and everything after it: evaluation and serving read bundles alone.

    weights.safetensors   fp32 weights, the logit scale among them
    config.json           the architecture (`raylens.config.ModelConfig`)
    tokenizer.json        as the ``tokenizers`` library writes it
    preprocess.json       geometry and normalisation of images
    bundle.json           hash and size of each file, lineage; written last
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import safetensors
import safetensors.torch
from pydantic import BaseModel, ValidationError, field_serializer
from torch import Tensor

from raylens.config import ModelConfig, explain
from raylens.errors import BundleError, NotFoundError
from raylens.inputs import Preprocess, Tokenizer
from raylens.registry.lineage import Lineage
from raylens.storage import Store

__all__ = ["MANIFEST", "Bundle"]

MANIFEST = "bundle.json"
FORMAT = 1
FILES = ("weights.safetensors", "config.json", "tokenizer.json", "preprocess.json")


@dataclass(frozen=True)
class Bundle:
    """A trained encoder and all that it needs to embed.

    ``lineage`` says where it comes from and does not change its identity.
    """

    config: ModelConfig
    weights: Mapping[str, Tensor]
    tokenizer: Tokenizer
    preprocess: Preprocess
    lineage: Lineage = field(default_factory=Lineage)

    def files(self) -> dict[str, bytes]:
        """Return the files of the bundle by name, without ``bundle.json``."""
        tensors = {name: self.weights[name].detach().cpu().contiguous() for name in sorted(self.weights)}
        return {
            "weights.safetensors": safetensors.torch.save(tensors),
            "config.json": (self.config.model_dump_json(indent=2) + "\n").encode(),
            "tokenizer.json": self.tokenizer.to_json().encode(),
            "preprocess.json": self.preprocess.to_json().encode(),
        }

    def save(self, store: Store) -> str:
        """Write the bundle into an empty folder of a store and return its digest."""
        files = self.files()
        for name, data in files.items():
            store.write(name, data)
        described = _described(files)
        manifest = _Manifest(format=FORMAT, files=described, lineage=self.lineage)
        store.write(MANIFEST, (manifest.model_dump_json(indent=2) + "\n").encode())
        return _digest(described)

    def is_saved(self, store: Store) -> bool:
        """Tell whether a folder holds a whole bundle, whose manifest is written last."""
        return store.exists(MANIFEST)

    def digest(self) -> str:
        """Return the bundle's identity: a hash over the hashes of its files."""
        return _digest(_described(self.files()))

    @classmethod
    def load(cls, store: Store, digest: str | None = None) -> Self:
        """Read a bundle and check every file against its hash, and all of them against ``digest`` unless it is None.

        Raises:
            BundleError: a file is missing, differs from its hash, or cannot be read.
        """
        manifest = _read_manifest(store)
        if digest is not None and _digest(manifest.files) != digest:
            raise BundleError(
                f"bundle at {store.describe()} has digest {_digest(manifest.files)[:12]}, expected {digest[:12]}: "
                f"{MANIFEST} was changed"
            )
        files = {name: _verified(store, name, manifest.files) for name in FILES}
        try:
            return cls(
                config=_config(files["config.json"]),
                weights=_weights(files["weights.safetensors"]),
                tokenizer=Tokenizer.from_json(files["tokenizer.json"]),
                preprocess=Preprocess.from_json(files["preprocess.json"]),
                lineage=manifest.lineage,
            )
        except BundleError as error:
            raise BundleError(f"bundle at {store.describe()}: {error}") from None


class _File(BaseModel):
    sha256: str
    size: int


class _Manifest(BaseModel):
    """The content of ``bundle.json``."""

    format: int
    files: dict[str, _File]
    lineage: Lineage = Lineage()

    @field_serializer("lineage")
    def _known(self, lineage: Lineage) -> dict[str, Any]:
        return lineage.tree()


def _read_manifest(store: Store) -> _Manifest:
    """Read and parse the ``bundle.json`` of a folder.

    Raises:
        BundleError: the file is missing, damaged, or of another format.
    """
    try:
        manifest = _Manifest.model_validate_json(store.read(MANIFEST))
    except NotFoundError:
        raise BundleError(
            f"no bundle at {store.describe()}: {MANIFEST} is missing (it is written last, so an interrupted "
            "write leaves none); train or register the model again"
        ) from None
    except ValidationError as error:
        raise BundleError(f"{MANIFEST} at {store.describe()} is damaged: {explain(error, _Manifest)}") from None
    if manifest.format != FORMAT:
        raise BundleError(
            f"{MANIFEST} at {store.describe()} has format {manifest.format}, expected {FORMAT}: update raylens"
        )
    return manifest


def _config(data: bytes) -> ModelConfig:
    try:
        return ModelConfig.model_validate_json(data)
    except ValidationError as error:
        raise BundleError(f"config.json cannot be read: {explain(error, ModelConfig)}") from None


def _weights(data: bytes) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise BundleError(f"weights.safetensors cannot be read: {error}") from None


def _described(files: Mapping[str, bytes]) -> dict[str, _File]:
    return {name: _File(sha256=_sha256(data), size=len(data)) for name, data in files.items()}


def _digest(described: Mapping[str, _File]) -> str:
    return _sha256("".join(f"{name} {described[name].sha256}\n" for name in sorted(described)).encode())


def _verified(store: Store, name: str, described: Mapping[str, _File]) -> bytes:
    if name not in described:
        raise BundleError(f"bundle at {store.describe()}: {MANIFEST} does not list {name}")
    try:
        data = store.read(name)
    except NotFoundError:
        raise BundleError(f"bundle at {store.describe()}: {name} is missing") from None
    actual = _sha256(data)
    if actual != described[name].sha256:
        raise BundleError(
            f"bundle at {store.describe()}: {name} has sha256 {actual[:12]}, {MANIFEST} says "
            f"{described[name].sha256[:12]}: the file was changed or damaged"
        )
    return data


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
