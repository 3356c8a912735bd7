"""Where a bundle comes from: a training run, a sweep's choice among runs, another program, or two other bundles."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from raylens.config import Goal

__all__ = ["Interpolation", "Lineage", "Selection"]

SHOWN = 12
"""Characters of a digest that people are shown."""


class Selection(BaseModel):
    """How a sweep came to promote this trial and no other."""

    model_config = ConfigDict(frozen=True)

    sweep: str
    """URI of the sweep's folder."""
    trial: str
    """Name of the best trial."""
    values: dict[str, Any]
    """Its values of the searched keys, by dotted path."""
    metric: str
    """Name of the metric that trials were compared by."""
    goal: Goal
    value: float | None
    """The trial's last value of the metric."""
    configurations: int
    """How many configurations were compared."""


class Interpolation(BaseModel):
    """The two bundles whose weights this one's lie between; see `raylens.registry.interpolate`."""

    model_config = ConfigDict(frozen=True)

    base: str
    """Digest of the bundle that fine-tuning began with."""
    tuned: str
    """Digest of what it became."""
    alpha: float
    """Share of ``tuned``, from 0 to 1."""


class Lineage(BaseModel):
    """Everything that is known of a bundle's origin; what does not apply, or nobody wrote down, is None or empty.

    Keys of other versions of raylens are kept as they are, and written again: see `others`.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    run: str | None = None
    """URI of the folder of the training run."""
    step: int | None = None
    """The step of the checkpoint that the weights are from."""
    objective: str | None = None
    """The loss, as ``objective.kind`` of the run names it."""
    weights: Literal["average", "last"] | None = None
    """Whether the weights are the run's exponential moving average."""
    samples_seen: int | None = None
    global_batch: int | None = None
    manifests: tuple[str, ...] = ()
    """Digests of the manifests of the training data."""
    selection: Selection | None = None
    imported_from: str | None = None
    """Name of the file or folder of another program."""
    format: str | None = None
    """How that was read: ``openai``, ``openclip`` or ``hf``."""
    notes: tuple[str, ...] = ()
    """What was done to imported weights that one should know of."""
    interpolated: Interpolation | None = None

    @model_validator(mode="before")
    @classmethod
    def _plural(cls, tree: Any) -> Any:
        """Read the ``manifest`` of bundles that were trained on one only."""
        if not isinstance(tree, Mapping) or "manifest" not in tree or "manifests" in tree:
            return tree
        return {key: value for key, value in tree.items() if key != "manifest"} | {"manifests": [tree["manifest"]]}

    @property
    def others(self) -> dict[str, Any]:
        """The keys that this version of raylens does not know, with their values."""
        return dict(self.model_extra or {})

    @property
    def training_data(self) -> str:
        """The manifests' digests, shortened, or why they are not known."""
        if self.manifests:
            return ", ".join(digest[:SHOWN] for digest in self.manifests)
        if self.interpolated is not None:
            return f"that of {self.interpolated.base[:SHOWN]} and {self.interpolated.tuned[:SHOWN]}"
        return "unknown" if self.imported_from is None else f"unknown; imported from {self.imported_from}"

    def tree(self) -> dict[str, Any]:
        """What is known as plain values, for JSON."""
        return self.model_dump(mode="json", exclude_defaults=True)
