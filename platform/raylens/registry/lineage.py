"""The origin of a bundle: a training run, a sweep's choice among runs, another program, or two other bundles."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from raylens.config import Goal

__all__ = ["Interpolation", "Lineage", "Selection"]

SHOWN = 12
"""The number of a digest's characters that are shown."""


class Selection(BaseModel):
    """The choice of a sweep's best trial, from which a bundle comes."""

    model_config = ConfigDict(frozen=True)

    sweep: str
    """The URI of the sweep's folder."""
    trial: str
    """The name of the best trial."""
    values: dict[str, Any]
    """The trial's values of the searched keys, by dotted path."""
    metric: str
    """The name of the metric by which trials were compared."""
    goal: Goal
    value: float | None
    """The trial's last value of the metric."""
    configurations: int
    """The number of configurations that were compared."""


class Interpolation(BaseModel):
    """The two bundles between whose weights a bundle was interpolated; see `raylens.registry.interpolate`."""

    model_config = ConfigDict(frozen=True)

    base: str
    """The digest of the bundle that fine-tuning started from."""
    tuned: str
    """The digest of the fine-tuned bundle."""
    alpha: float
    """The share of ``tuned``, from 0 to 1."""


class Lineage(BaseModel):
    """Everything that is known of a bundle's origin; a field that does not apply, or is not known, is None or empty.

    Keys of other versions of raylens are kept unchanged and written again: see `others`.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    run: str | None = None
    """The URI of the training run's folder."""
    step: int | None = None
    """The step of the checkpoint that holds the weights."""
    objective: str | None = None
    """The loss, as in the run's ``objective.kind``."""
    weights: Literal["average", "last"] | None = None
    """Whether the weights are the run's exponential moving average or those of the last step."""
    samples_seen: int | None = None
    global_batch: int | None = None
    data: tuple[str, ...] = ()
    """The URIs of the training data sets, in the order of the manifests."""
    manifests: tuple[str, ...] = ()
    """The digests of the training data's manifests."""
    selection: Selection | None = None
    imported_from: str | None = None
    """The name of another program's file or folder."""
    format: str | None = None
    """The format of that file or folder: ``openai``, ``openclip`` or ``hf``."""
    notes: tuple[str, ...] = ()
    """The changes made to imported weights, as sentences for people."""
    interpolated: Interpolation | None = None

    @model_validator(mode="before")
    @classmethod
    def _plural(cls, tree: Any) -> Any:
        """Read the key ``manifest`` of bundles that were trained on a single data set."""
        if not isinstance(tree, Mapping) or "manifest" not in tree or "manifests" in tree:
            return tree
        return {key: value for key, value in tree.items() if key != "manifest"} | {"manifests": [tree["manifest"]]}

    @property
    def others(self) -> dict[str, Any]:
        """The keys that this version of raylens does not know, with their values."""
        return dict(self.model_extra or {})

    @property
    def training_data(self) -> str:
        """The data sets with their manifests' digests, shortened, or the reason why they are not known."""
        digests = [digest[:SHOWN] for digest in self.manifests]
        if digests and len(digests) == len(self.data):
            return ", ".join(f"{uri} ({digest})" for uri, digest in zip(self.data, digests, strict=True))
        if digests:
            return ", ".join(digests)
        if self.interpolated is not None:
            return f"that of {self.interpolated.base[:SHOWN]} and {self.interpolated.tuned[:SHOWN]}"
        return "unknown" if self.imported_from is None else f"unknown; imported from {self.imported_from}"

    def tree(self) -> dict[str, Any]:
        """Return the known fields as plain values, for JSON."""
        return self.model_dump(mode="json", exclude_defaults=True)
