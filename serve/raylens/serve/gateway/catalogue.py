"""The models that a service has, by the names that requests call them."""

from collections.abc import Sequence
from dataclasses import dataclass

from raylens.serve.api.errors import RefusedError
from raylens.serve.gateway.model_router import ModelRouter
from raylens.serve.messages import ModelIdentity

__all__ = ["Catalogue", "ServedModel"]


@dataclass(frozen=True)
class ServedModel:
    """A model and the reference that it is served under."""

    reference: str
    """``name@3`` or ``name@alias``."""
    model: ModelRouter

    @property
    def name(self) -> str:
        """Without version or alias."""
        return self.reference.partition("@")[0]


@dataclass(frozen=True)
class ModelChoice:
    """The model that a request means."""

    served: ServedModel
    number: int | None
    """The only version that will do."""

    def check(self, identity: ModelIdentity) -> None:
        """Is it the version that the request names?

        Raises:
            RefusedError: another one is served.
        """
        if self.number is not None and identity.number != self.number:
            raise RefusedError(
                f"model '{identity.name}@{self.number}' is not served here: it is '{identity.name}@{identity.number}'",
                status=404,
                code="model_not_found",
                param="model",
            )


class Catalogue:
    """All of them; the first is what a request without ``model`` means."""

    def __init__(self, served: Sequence[ServedModel]) -> None:
        self.served = tuple(served)

    def choose(self, model: str | None) -> ModelChoice:
        """By name, by the reference that it is served under, or by ``name@number``.

        Raises:
            RefusedError: there is none.
        """
        if model is None:
            return ModelChoice(self.served[0], None)
        for one in self.served:
            if model in (one.reference, one.name):
                return ModelChoice(one, None)
        name, _, number = model.partition("@")
        for one in self.served:
            if name == one.name and number.isdecimal() and len(number) < 10:
                return ModelChoice(one, int(number))
        there = ", ".join(repr(one.name) for one in self.served)
        raise RefusedError(
            f"model {model[:100]!r} is not served here; there is {there}",
            status=404,
            code="model_not_found",
            param="model",
        )
