"""A run of W&B that follows a run of raylens."""

import uuid
from pathlib import Path
from typing import Any

from raylens.config import RunConfig
from raylens.config.tracking import WandbConfig
from raylens.errors import ConfigError
from raylens.extras import import_extra
from raylens.storage import Store
from raylens.storage.local import LocalStore
from raylens.train.tracking.ids import Ids
from raylens.train.tracking.sink import Outcome, Point

__all__ = ["WandbRun"]

EXIT_CODES = {"finished": 0, "interrupted": 255, "failed": 1}
"""As W&B reads them; 255 is shown as killed."""


class WandbRun:
    """Begun when the first figures come; W&B sends them itself, in a process of its own."""

    name = "wandb"
    every_seconds = 30.0

    def __init__(self, config: WandbConfig, run: RunConfig, store: Store, ids: Ids) -> None:
        """Load the package, and look whether anybody is logged in.

        Raises:
            ConfigError: it is not installed, or is to be online and nobody is.
        """
        self._wandb = import_extra("wandb", "wandb", "tracking.wandb")
        if config.mode == "online":
            self._check_login()
        self._config, self._settings, self._run_name, self._ids = (
            config,
            run.model_dump(mode="json", exclude={"tracking"}),
            run.name,
            ids,
        )
        # Where W&B would put them itself, for a run in a bucket.
        self._folder = Path(store.root) if isinstance(store, LocalStore) else Path.cwd()
        self._place = f"{config.entity or ''}/{config.project}"
        self._run: Any = None

    def begin(self, start: int) -> None:
        """Nothing: steps that are taken again are told again, and W&B keeps both."""

    def add(self, point: Point) -> None:
        """Hand over the figures of a step.

        Raises:
            wandb.Error: W&B's process is gone, or there is no such project.
            StorageError: the id of a new run could not be written.
        """
        if self._run is None:
            self._run = self._opened()
        self._ids.save()
        histograms = {
            key: self._wandb.Histogram(np_histogram=(list(counts), _edges(len(counts))))
            for key, counts in point.histograms.items()
        }
        # W&B's own step must rise: steps that are taken again get later ones, and charts go by ours, which is a figure
        # like others. Left to itself it would begin at 0 in each start of an offline run.
        values = {"step": point.step, **point.scalars, **histograms}
        self._run.log(values, step=max(point.step, self._run.step), commit=True)

    def flush(self) -> None:
        """Write the run's id, if that did not work before.

        Raises:
            StorageError: it does not work now.
        """
        self._ids.save()

    def close(self, outcome: Outcome) -> None:
        """Wait until W&B has sent everything, and say how the run ended."""
        self._ids.save()
        if self._run is not None:
            self._run.finish(exit_code=EXIT_CODES[outcome])

    def _check_login(self) -> None:
        # Otherwise W&B would ask at the terminal, in the middle of training.
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
    """Of bins of equal width over [-1, 1]."""
    return [2.0 * place / bins - 1.0 for place in range(bins + 1)]
