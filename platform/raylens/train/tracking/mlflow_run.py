"""A run of MLflow that records a run of raylens."""

import re
import time
from typing import Any

from raylens.config import MlflowConfig, RunConfig, flatten
from raylens.evaluate import Goal
from raylens.extras import import_extra
from raylens.storage import Store
from raylens.train.tracking.ids import TrackingIds
from raylens.train.tracking.sink import Outcome, Point

__all__ = ["MlflowRun"]

# MLflow's limits (mlflow.utils.validation).
KEY_LENGTH, VALUE_LENGTH, PARAMETERS_AT_ONCE, METRICS_AT_ONCE = 250, 6000, 100, 1000
NOT_IN_A_KEY = re.compile(r"[^\w.\- /]")
STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}


class MlflowRun:
    """Created or continued when the first values come, so that an unreachable server does not delay training."""

    name = "mlflow"
    every_seconds = 30.0

    def __init__(self, config: MlflowConfig, run: RunConfig, store: Store, ids: TrackingIds) -> None:
        """Import the package mlflow.

        Raises:
            ConfigError: the package is not installed.
        """
        self._mlflow = import_extra("mlflow", "mlflow", "tracking.mlflow")
        self._config, self._run, self._store, self._ids = config, run, store, ids
        self._place = f"{config.tracking_uri} {config.experiment}"
        self._client: Any = None
        self._id: str | None = None
        self._ready = False
        self._goals: set[str] = set()
        """Keys of the metrics whose goals MLflow has."""

    def begin(self, start: int) -> None:
        """Do nothing: repeated steps are sent again, and MLflow keeps both."""

    def add(self, point: Point) -> None:
        """Send the values of a step.

        Raises:
            MlflowException: the server refuses them, or is unreachable.
            StorageError: the id of a new run could not be written.
        """
        run_id = self._opened()
        self._ids.save()
        entity, now = self._mlflow.entities.Metric, int(time.time() * 1000)
        metrics = [entity(_key(key), value, now, point.step) for key, value in point.scalars.items()]
        self._tell_goals(run_id, {_key(key): goal for key, goal in point.goals.items()})
        for first in range(0, len(metrics), METRICS_AT_ONCE):
            self._client.log_batch(run_id, metrics=metrics[first : first + METRICS_AT_ONCE], synchronous=True)

    def flush(self) -> None:
        """Write the id of the run, if an earlier attempt failed.

        Raises:
            StorageError: the id could not be written.
        """
        self._ids.save()

    def close(self, outcome: Outcome) -> None:
        """Set how the run ended.

        Raises:
            MlflowException: the server refuses it, or is unreachable.
        """
        self._ids.save()
        if self._id is not None:
            self._client.set_terminated(self._id, STATUS[outcome])

    def _opened(self) -> str:
        if self._client is None:
            self._client = self._mlflow.MlflowClient(tracking_uri=self._config.tracking_uri)
        if self._id is None:
            self._id = self._recorded_before() or self._create()
        if not self._ready:
            self._tell_parameters(self._id)
            self._ready = True
        return self._id

    def _recorded_before(self) -> str | None:
        """Return the run of MLflow that recorded this run before, or None if it no longer exists."""
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

    def _create(self) -> str:
        experiment = self._client.get_experiment_by_name(self._config.experiment)
        place = experiment.experiment_id if experiment else self._client.create_experiment(self._config.experiment)
        tags = {"raylens.storage": self._store.uri}
        run_id = str(self._client.create_run(place, run_name=self._run.name, tags=tags).info.run_id)
        self._id = run_id  # before it is written: if that fails, the next record must not create another run
        self._ids.put(self.name, self._place, run_id)
        return run_id

    def _tell_parameters(self, run_id: str) -> None:
        """Send the parameters that MLflow does not have: a resumed run may have others, and MLflow changes none."""
        have, entity = self._client.get_run(run_id).data.params, self._mlflow.entities.Param
        settings = flatten(self._run.model_dump(mode="json", exclude={"tracking"}))
        short = {_key(key): value[:VALUE_LENGTH] for key, value in settings.items()}
        new = [entity(key, value) for key, value in short.items() if key not in have]
        for first in range(0, len(new), PARAMETERS_AT_ONCE):
            self._client.log_batch(run_id, params=new[first : first + PARAMETERS_AT_ONCE], synchronous=True)

    def _tell_goals(self, run_id: str, goals: dict[str, Goal]) -> None:
        """Write the goals as tags, because MLflow's metrics have a name and a value alone."""
        tags = [self._mlflow.entities.RunTag(f"raylens.goal.{key}", goals[key]) for key in goals.keys() - self._goals]
        if tags:
            self._client.log_batch(run_id, tags=tags, synchronous=True)
            self._goals |= goals.keys()


def _key(key: str) -> str:
    return NOT_IN_A_KEY.sub("_", key)[:KEY_LENGTH]
