"""Where a run is followed besides its own folder; nothing here changes what is learned."""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from raylens.config.node import Node

__all__ = ["MlflowConfig", "TrackingConfig", "WandbConfig"]

Text = Annotated[str, Field(min_length=1)]
WITH_PASSWORD = re.compile(r"https?://[^/?#]*@")


class MlflowConfig(Node):
    """An MLflow run that has the parameters and figures of this one; needs ``raylens[mlflow]``."""

    tracking_uri: Text
    """Of the server, ``http://host:5000``; or ``sqlite:///path`` where MLflow is installed with SQLAlchemy."""
    experiment: Text = "raylens"
    """Made where there is none."""

    @model_validator(mode="after")
    def _no_password(self) -> Self:
        # Configurations are written down with the run.
        if WITH_PASSWORD.match(self.tracking_uri):
            raise ValueError(
                "tracking_uri must not hold a name or password: set MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, in the environment"
            )
        return self


class WandbConfig(Node):
    """A W&B run that has the parameters and figures of this one; needs ``raylens[wandb]``."""

    project: Text
    entity: Text | None = None
    """A user or team; unset, the default one of whoever is logged in."""
    mode: Literal["online", "offline"] = "online"
    """``offline`` leaves files in the run's folder for ``wandb sync``, and needs no account."""


class TrackingConfig(Node):
    """The tools that are told of a run. One that fails while training goes on is warned of once and tried again."""

    tensorboard: bool = True
    """Event files in the run's folder, under ``tensorboard/``."""
    mlflow: MlflowConfig | None = None
    wandb: WandbConfig | None = None
    prometheus: bool = True
    """Gauges beside Ray's own, on the metrics port of the node where the run was started."""
