"""The models of a service, and which of them a request names."""

from collections.abc import Sequence
from dataclasses import dataclass

from raylens.serve.api.errors import RefusedError
from raylens.serve.gateway.model_router import ModelRouter
from raylens.serve.messages import ModelIdentity

__all__ = ["Catalogue", "ServedModel"]


@dataclass(frozen=True)
class ServedModel:
    """A model and the registry reference that it is served under."""

    reference: str
    """The reference: ``name@3`` or ``name@alias``."""
    model: ModelRouter

    @property
    def name(self) -> str:
        """The model's name without version or alias."""
        return self.reference.partition("@")[0]


@dataclass(frozen=True)
class ModelChoice:
    """The model that a request names, and perhaps its version."""

    served: ServedModel
    number: int | None
    """The version that the request requires; None accepts any."""

    def check_version(self, identity: ModelIdentity) -> None:
        """Check that the version that answered is the one that the request requires.

        Raises:
            RefusedError: another version is served (status 404).
        """
        if self.number is not None and identity.number != self.number:
            raise RefusedError(
                f"model '{identity.name}@{self.number}' is not served here: it is '{identity.name}@{identity.number}'",
                status=404,
                code="model_not_found",
                param="model",
            )


class Catalogue:
    """All models of a service; a request without ``model`` goes to the first."""

    def __init__(self, served: Sequence[ServedModel]) -> None:
        self.served = tuple(served)

    def choose(self, model: str | None) -> ModelChoice:
        """Return the model of a request, by its name, its reference, or ``name@number``.

        Raises:
            RefusedError: no such model is served (status 404).
        """
        if model is None:
            return ModelChoice(self.served[0], None)
        for served in self.served:
            if model in (served.reference, served.name):
                return ModelChoice(served, None)
        name, _, number = model.partition("@")
        for served in self.served:
            if name == served.name and number.isdecimal() and len(number) < 10:
                return ModelChoice(served, int(number))
        names = ", ".join(repr(served.name) for served in self.served)
        raise RefusedError(
            f"model {model[:100]!r} is not served here; the models are {names}",
            status=404,
            code="model_not_found",
            param="model",
        )
