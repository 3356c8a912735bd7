"""The settings of the data: which image-text pairs a run reads, and how."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from raylens.config.node import Node

__all__ = ["DataConfig", "SourceConfig", "from_uri"]

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class SourceConfig(Node):
    """A data set: webdataset tars, Parquet with images, a table of image paths, or a folder of classes."""

    uri: str
    """A folder, ``s3://bucket/prefix``, ``gs://bucket/prefix``; or shards by name: globs, ``{000..127}``, ``{a,b}``."""
    weight: Annotated[float, Field(gt=0.0, ge=1e-9, le=1e9)] = 1.0
    """The share of samples drawn from this data set, relative to the other data sets' weights."""
    format: Literal["auto", "tar", "parquet", "table", "folder"] = "auto"
    """The format of the shards; ``auto`` detects it from the names of the objects."""
    image_column: str | None = None
    """The columns of images and captions in Parquet and tables; unset, they are recognised by their usual names."""
    caption_column: str | None = None


def from_uri(source: object) -> object:
    """Return a data set's settings from its URI alone; return anything else as it is."""
    return {"uri": source} if isinstance(source, str) else source


class DataConfig(Node):
    """Which image-text pairs a run trains on, and in which order and how it reads them."""

    train: Annotated[tuple[SourceConfig, ...], Field(min_length=1)]
    """One data set, or several that are mixed by their weights; a data set may be its URI alone."""
    chunk_size: Annotated[int, Field(gt=0, le=65_536)] = 32
    """Consecutive samples that one ranged request reads. In Parquet, a chunk is a row group instead."""
    chunks_per_block: Annotated[int, Field(gt=0, le=65_536)] = 32
    """Chunks, drawn from the whole data set, whose samples are mixed."""
    drop_last: bool = False
    """Whether the partial batch at the end of an epoch is left out instead of filled from the next epoch."""
    check_hashes: bool = False
    """Whether each image's bytes are compared with the hash in the manifest."""
    crop_min_scale: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9
    """The smallest share of the largest square's area that a random square crop keeps; 1 always crops the centre."""
    quarantine_budget: Fraction = 0.01
    """The largest share of unusable samples; above it the run stops."""
    max_pixels: Annotated[int, Field(gt=0, le=178_956_970)] = 89_478_485
    """Images with more pixels are refused before they are decoded; the bound is where Pillow itself refuses."""

    @field_validator("train", mode="before")
    @classmethod
    def _uri_alone(cls, train: object) -> object:
        items = [train] if isinstance(train, str | dict) else train
        if not isinstance(items, list):
            return items
        return [from_uri(item) for item in items]

    @model_validator(mode="after")
    def _whole_epochs(self) -> Self:
        if self.drop_last and len(self.train) > 1:
            raise ValueError(
                "data.drop_last = true needs one data set: in a mixture each data set has epochs of its own"
            )
        return self
