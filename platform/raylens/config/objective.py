"""What is learned: the loss over the global batch, and its temperature."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from raylens.config.node import Node

__all__ = ["ObjectiveConfig"]


class ObjectiveConfig(Node):
    """The loss over the global batch and its temperature (Radford et al. 2021, sections 2.3 and 2.5)."""

    kind: Literal["softmax", "sigmoid", "triplet", "bag_of_words", "caption"] = "softmax"
    """``softmax`` is the paper's symmetric contrastive loss, ``sigmoid`` SigLIP's (Zhai et al. 2023), ``triplet`` the
    classical one; ``bag_of_words`` and ``caption`` predict text from images, as the paper's figure 2 compares them."""
    temperature: Annotated[float, Field(gt=0.0)] | None = 0.07
    """Where the temperature starts, at most 1; the model learns the logarithm of its inverse."""
    logit_scale: Annotated[float, Field(gt=0.0, le=300.0)] | None = None
    """The inverse of the temperature, for those who think in it, at least 1: exactly one of the two is given."""
    learn_scale: bool = True
    """Whether the temperature is learned or stays as it starts."""
    end_temperature: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Where a temperature that is not learned ends: it goes there along half a cosine of its logarithm."""
    max_logit_scale: Annotated[float, Field(gt=1.0, le=300.0)] = 100.0
    """The scale in use never exceeds it (section 2.5)."""
    matmul_precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    """What embeddings are rounded to before the loss multiplies them; sums are fp32 always. See docs/objectives.md."""
    margin: Annotated[float, Field(gt=0.0, le=2.0)] = 0.2
    """Of the triplet loss: by how much a match's cosine should exceed any other's."""
    bias: float = -10.0
    """Where the logit bias of the sigmoid loss starts: nearly all pairs of a batch are no matches."""

    @model_validator(mode="before")
    @classmethod
    def _scale_alone(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("logit_scale") is not None and "temperature" not in values:
            return {**values, "temperature": None}
        return values

    @field_validator("temperature", "logit_scale")
    @classmethod
    def _no_other_one(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and info.field_name == "temperature" and value > 1.0:
            raise ValueError(f"a temperature is at most 1; a scale of {value:g} is given as objective.logit_scale")
        if value is not None and info.field_name == "logit_scale" and value < 1.0:
            raise ValueError(f"a scale is at least 1; a temperature of {value:g} is given as objective.temperature")
        return value

    @model_validator(mode="after")
    def _one_scale(self) -> Self:
        if (self.temperature is None) == (self.logit_scale is None):
            raise ValueError(
                f"give exactly one of objective.temperature (now {self.temperature}) and objective.logit_scale (now "
                f"{self.logit_scale}), which is its inverse, and null for the other"
            )
        if self.initial_scale > self.max_logit_scale:
            raise ValueError(
                f"the logit scale starts at {self.initial_scale:.4g}, above objective.max_logit_scale = "
                f"{self.max_logit_scale:g}: raise the one or lower the other"
            )
        return self

    @model_validator(mode="after")
    def _one_will(self) -> Self:
        if self.end_temperature is None:
            return self
        if self.learn_scale or not self.has_scale:
            raise ValueError(
                f"objective.end_temperature = {self.end_temperature:g} needs objective.learn_scale = false and an "
                f"objective with a temperature (now {self.kind}): it is scheduled or learned, not both"
            )
        if 1.0 / self.end_temperature > self.max_logit_scale:
            raise ValueError(
                f"objective.end_temperature = {self.end_temperature:g} is a logit scale of "
                f"{1.0 / self.end_temperature:.4g}, above objective.max_logit_scale = {self.max_logit_scale:g}"
            )
        return self

    @property
    def initial_scale(self) -> float:
        """The factor from cosine to logit that a run starts with."""
        if self.logit_scale is not None:
            return self.logit_scale
        assert self.temperature is not None
        return 1.0 / self.temperature

    @property
    def has_scale(self) -> bool:
        """Whether the loss has a temperature at all."""
        return self.kind not in ("triplet", "caption")
