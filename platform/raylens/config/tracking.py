"""The settings of experiment tracking outside of the run's folder, which do not change the training."""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from raylens.config.node import Node

__all__ = ["MlflowConfig", "TrackingConfig", "WandbConfig"]

Text = Annotated[str, Field(min_length=1)]
WITH_PASSWORD = re.compile(r"https?://[^/?#]*@")


class MlflowConfig(Node):
    """An MLflow run with the parameters and metrics of this run; it needs ``raylens[mlflow]``."""

    tracking_uri: Text
    """The URI of the server, ``http://host:5000``; or ``sqlite:///path`` if MLflow is installed with SQLAlchemy."""
    experiment: Text = "raylens"
    """The experiment, which is created if there is none."""

    @model_validator(mode="after")
    def _no_password(self) -> Self:
        # A run's configuration is saved with it.
        if WITH_PASSWORD.match(self.tracking_uri):
            raise ValueError(
                "tracking_uri must not contain a name or password: set MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, in the environment"
            )
        return self


class WandbConfig(Node):
    """A W&B run with the parameters and metrics of this run; it needs ``raylens[wandb]``."""

    project: Text
    entity: Text | None = None
    """A user or team; unset, the default of the user who is logged in."""
    mode: Literal["online", "offline"] = "online"
    """``offline`` leaves files in the run's folder for ``wandb sync``, and needs no account."""


class TrackingConfig(Node):
    """The tools that track a run. If one fails during training, there is one warning, and it is tried again."""

    tensorboard: bool = True
    """Whether event files are written in the run's folder, under ``tensorboard/``."""
    mlflow: MlflowConfig | None = None
    wandb: WandbConfig | None = None
    prometheus: bool = True
    """Whether gauges are exported beside Ray's own, on the metrics port of the node that started the run."""
