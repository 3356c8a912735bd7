"""A run of W&B that records a run of raylens."""

import uuid
from pathlib import Path
from typing import Any

from raylens.config import RunConfig, WandbConfig
from raylens.errors import ConfigError
from raylens.extras import import_extra
from raylens.storage import LocalStore, Store
from raylens.train.tracking.ids import TrackingIds
from raylens.train.tracking.sink import Outcome, Point

__all__ = ["WandbRun"]

EXIT_CODES = {"finished": 0, "interrupted": 255, "failed": 1}
"""Exit codes as W&B reads them; it shows 255 as killed."""


class WandbRun:
    """Created when the first values come; W&B sends them from a process of its own."""

    name = "wandb"
    every_seconds = 30.0

    def __init__(self, config: WandbConfig, run: RunConfig, store: Store, ids: TrackingIds) -> None:
        """Import the package wandb, and check that somebody is logged in.

        Raises:
            ConfigError: the package is not installed, or the run is to be online and nobody is logged in.
        """
        self._wandb = import_extra("wandb", "wandb", "tracking.wandb")
        if config.mode == "online":
            self._check_login()
        self._config, self._run_name, self._ids = config, run.name, ids
        self._settings = run.model_dump(mode="json", exclude={"tracking"})
        # For a run in a bucket, the folder that W&B would choose itself.
        self._folder = Path(store.root) if isinstance(store, LocalStore) else Path.cwd()
        self._place = f"{config.entity or ''}/{config.project}"
        self._run: Any = None
        self._defined: set[str] = set()

    def begin(self, start: int) -> None:
        """Do nothing: repeated steps are sent again, and W&B keeps both."""

    def add(self, point: Point) -> None:
        """Give the values of a step to W&B.

        Raises:
            wandb.Error: W&B's process is gone, or there is no such project.
            StorageError: the id of a new run could not be written.
        """
        if self._run is None:
            self._run = self._opened()
        self._ids.save()
        for key, goal in point.goals.items():
            if key not in self._defined:
                # W&B's table of runs shows the best value beside the last one.
                self._run.define_metric(key, step_metric="step", summary=f"{goal},last")
                self._defined.add(key)
        histograms = {
            key: self._wandb.Histogram(np_histogram=(list(counts), _edges(len(counts))))
            for key, counts in point.histograms.items()
        }
        # W&B's own step must increase: repeated steps get later ones, and charts use our step, which is logged as a
        # value. By default it would begin at 0 at each start of an offline run.
        values = {"step": point.step, **point.scalars, **histograms}
        self._run.log(values, step=max(point.step, self._run.step), commit=True)

    def flush(self) -> None:
        """Write the id of the run, if an earlier attempt failed.

        Raises:
            StorageError: the id could not be written.
        """
        self._ids.save()

    def close(self, outcome: Outcome) -> None:
        """Wait until W&B has sent everything, and set how the run ended."""
        self._ids.save()
        if self._run is not None:
            self._run.finish(exit_code=EXIT_CODES[outcome])

    def _check_login(self) -> None:
        # Otherwise W&B would prompt at the terminal, in the middle of training.
        if self._wandb.run is None and not self._wandb.login(prompt=False, verify=False):
            raise ConfigError(
                "tracking.wandb.mode = 'online', but nobody is logged in to W&B: run 'wandb login', set WANDB_API_KEY, "
                "or choose tracking.wandb.mode = 'offline'"
            )

    def _opened(self) -> Any:
        known = self._ids.get(self.name, self._place)
        if known is None:
            known = uuid.uuid4().hex
            self._ids.put(self.name, self._place, known)
        run = self._wandb.init(
            project=self._config.project,
            entity=self._config.entity,
            mode=self._config.mode,
            id=known,
            name=self._run_name,
            config=self._settings,
            allow_val_change=True,
            resume="allow",
            reinit="create_new",
            dir=self._folder,
            settings=self._wandb.Settings(console="off", silent=True),
        )
        run.define_metric("*", step_metric="step")
        return run


def _edges(bins: int) -> list[float]:
    """Return the edges of equal bins over [-1, 1]."""
    return [2.0 * place / bins - 1.0 for place in range(bins + 1)]
