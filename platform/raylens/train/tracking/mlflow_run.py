"""A run of MLflow that follows a run of raylens."""

import re
import time
from typing import Any

from raylens.config import RunConfig, flatten
from raylens.config.tracking import MlflowConfig
from raylens.extras import import_extra
from raylens.storage import Store
from raylens.train.tracking.ids import Ids
from raylens.train.tracking.sink import Outcome, Point

__all__ = ["MlflowRun"]

# MLflow's limits (mlflow.utils.validation).
KEY_LENGTH, VALUE_LENGTH, PARAMETERS_AT_ONCE, METRICS_AT_ONCE = 250, 6000, 100, 1000
NOT_IN_A_KEY = re.compile(r"[^\w.\- /]")
STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}


class MlflowRun:
    """Made or found again when the first figures come, so that a server that is down stops nothing."""

    name = "mlflow"
    every_seconds = 30.0

    def __init__(self, config: MlflowConfig, run: RunConfig, store: Store, ids: Ids) -> None:
        """Load the package.

        Raises:
            ConfigError: it is not installed.
        """
        self._mlflow = import_extra("mlflow", "mlflow", "tracking.mlflow")
        self._config, self._run, self._store, self._ids = config, run, store, ids
        self._place = f"{config.tracking_uri} {config.experiment}"
        self._client: Any = None
        self._id: str | None = None
        self._ready = False

    def begin(self, start: int) -> None:
        """Nothing: steps that are taken again are told again, and MLflow keeps both."""

    def add(self, point: Point) -> None:
        """Send the figures of a step.

        Raises:
            MlflowException: the server does not take them, or is not there.
            StorageError: the id of a new run could not be written.
        """
        run_id = self._opened()
        self._ids.save()
        entity, now = self._mlflow.entities.Metric, int(time.time() * 1000)
        metrics = [entity(_key(key), value, now, point.step) for key, value in point.scalars.items()]
        for first in range(0, len(metrics), METRICS_AT_ONCE):
            self._client.log_batch(run_id, metrics=metrics[first : first + METRICS_AT_ONCE], synchronous=True)

    def flush(self) -> None:
        """Write the run's id, if that did not work before.

        Raises:
            StorageError: it does not work now.
        """
        self._ids.save()

    def close(self, outcome: Outcome) -> None:
        """Say how the run ended.

        Raises:
            MlflowException: the server does not hear it.
        """
        self._ids.save()
        if self._id is not None:
            self._client.set_terminated(self._id, STATUS[outcome])

    def _opened(self) -> str:
        if self._client is None:
            self._client = self._mlflow.MlflowClient(tracking_uri=self._config.tracking_uri)
        if self._id is None:
            self._id = self._found() or self._made()
        if not self._ready:
            self._tell_parameters(self._id)
            self._ready = True
        return self._id

    def _found(self) -> str | None:
        """The run that this one was followed by before; None if there is none any more."""
        known = self._ids.get(self.name, self._place)
        if known is None:
            return None
        try:
            self._client.update_run(known, status="RUNNING")
        except self._mlflow.MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return known

    def _made(self) -> str:
        experiment = self._client.get_experiment_by_name(self._config.experiment)
        place = experiment.experiment_id if experiment else self._client.create_experiment(self._config.experiment)
        tags = {"raylens.storage": self._store.uri}
        run_id = str(self._client.create_run(place, run_name=self._run.name, tags=tags).info.run_id)
        self._id = run_id  # before it is written: if that fails, the next record must not make another
        self._ids.put(self.name, self._place, run_id)
        return run_id

    def _tell_parameters(self, run_id: str) -> None:
        """Those that it does not have: a run may resume with other machines, and MLflow never changes a parameter."""
        have, entity = self._client.get_run(run_id).data.params, self._mlflow.entities.Param
        settings = flatten(self._run.model_dump(mode="json", exclude={"tracking"}))
        short = {_key(key): value[:VALUE_LENGTH] for key, value in settings.items()}
        new = [entity(key, value) for key, value in short.items() if key not in have]
        for first in range(0, len(new), PARAMETERS_AT_ONCE):
            self._client.log_batch(run_id, params=new[first : first + PARAMETERS_AT_ONCE], synchronous=True)


def _key(key: str) -> str:
    return NOT_IN_A_KEY.sub("_", key)[:KEY_LENGTH]
