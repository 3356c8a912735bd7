"""The settings of the objective: the loss over the global batch, and its temperature."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from raylens.config.node import Node

__all__ = ["ObjectiveConfig"]


class ObjectiveConfig(Node):
    """The loss over the global batch and its temperature (Radford et al. 2021, sections 2.3 and 2.5)."""

    kind: Literal["softmax", "sigmoid", "triplet", "bag_of_words", "caption"] = "softmax"
    """``softmax`` is the paper's symmetric contrastive loss, ``sigmoid`` SigLIP's (Zhai et al. 2023), ``triplet`` the
    classical baseline; ``bag_of_words`` and ``caption`` predict text from images, as in the paper's figure 2."""
    temperature: Annotated[float, Field(gt=0.0)] | None = 0.07
    """The initial temperature, at most 1; the model learns the logarithm of its inverse."""
    logit_scale: Annotated[float, Field(gt=0.0, le=300.0)] | None = None
    """The initial logit scale, at least 1, as the inverse of ``temperature``: set exactly one of the two."""
    learn_scale: bool = True
    """Whether the temperature is learned; otherwise it keeps its initial value, or goes to ``end_temperature``."""
    end_temperature: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """The final temperature if it is not learned; its logarithm goes there along half a cosine."""
    max_logit_scale: Annotated[float, Field(gt=1.0, le=300.0)] = 100.0
    """The cap on the logit scale in use (section 2.5)."""
    matmul_precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    """The precision to which the loss rounds embeddings before it multiplies them; sums are always in fp32. See
    docs/objectives.md."""
    margin: Annotated[float, Field(gt=0.0, le=2.0)] = 0.2
    """The margin of the triplet loss, by which a match's cosine should exceed any other's."""
    bias: float = -10.0
    """The initial logit bias of the sigmoid loss; it is negative because nearly all pairs of a batch are no matches."""

    @model_validator(mode="before")
    @classmethod
    def _scale_alone(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("logit_scale") is not None and "temperature" not in values:
            return {**values, "temperature": None}
        return values

    @field_validator("temperature", "logit_scale")
    @classmethod
    def _in_range(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and info.field_name == "temperature" and value > 1.0:
            raise ValueError(f"a temperature is at most 1; set a scale of {value:g} as objective.logit_scale")
        if value is not None and info.field_name == "logit_scale" and value < 1.0:
            raise ValueError(f"a scale is at least 1; set a temperature of {value:g} as objective.temperature")
        return value

    @model_validator(mode="after")
    def _one_scale(self) -> Self:
        if (self.temperature is None) == (self.logit_scale is None):
            raise ValueError(
                f"set exactly one of objective.temperature (now {self.temperature}) and objective.logit_scale (now "
                f"{self.logit_scale}), which is its inverse, and the other to null"
            )
        if self.initial_scale > self.max_logit_scale:
            raise ValueError(
                f"the logit scale starts at {self.initial_scale:.4g}, above objective.max_logit_scale = "
                f"{self.max_logit_scale:g}: raise the cap or lower the scale"
            )
        return self

    @model_validator(mode="after")
    def _scheduled_or_learned(self) -> Self:
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
        """The logit scale with which a run starts."""
        if self.logit_scale is not None:
            return self.logit_scale
        assert self.temperature is not None
        return 1.0 / self.temperature

    @property
    def has_scale(self) -> bool:
        """Whether the loss has a temperature."""
        return self.kind not in ("triplet", "caption")
