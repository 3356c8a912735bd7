"""A run on a Ray cluster, from a configuration to a registered encoder."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
import ray.train

from raylens.config import RunConfig
from raylens.data.block import UnitMaker
from raylens.data.stream import training_stream
from raylens.errors import RaylensError, WorkersLostError, own_error
from raylens.extras import require_extra
from raylens.interrupts import Interrupts
from raylens.messages import Say, print_line
from raylens.storage import Store
from raylens.train.checkpoint.store import Checkpoints
from raylens.train.loop.events import News
from raylens.train.ray.driver_channel import board, listening
from raylens.train.ray.process_group import ProcessGroupConfig
from raylens.train.ray.resource_monitor import RoomWatch
from raylens.train.ray.resources import check_room, placement_of
from raylens.train.ray.trainer import Trainer, WorkerStart, workers_to_start
from raylens.train.run.audience import Audience
from raylens.train.run.prepare import Prepared, prepare, run_store
from raylens.train.run.worker_spec import WorkerJob, check_fits
from raylens.train.runs.report import REPORT, write_training_report

if TYPE_CHECKING:
    from raylens.registry import Version

__all__ = ["Fitted", "RunResult", "fit", "train"]

NOTICE = "the state is saved after the current step"
COLLECTIVE_TIMEOUT_SECONDS = 300
RESIZE_SECONDS = 60.0
"""Between two looks at whether the cluster has room for more workers, or for as many."""


@dataclass(frozen=True)
class Fitted:
    """A run whose last step was taken."""

    prepared: Prepared
    checkpoints: Checkpoints
    resumed_at: int
    """The step that this start went on from; 0 for a fresh run, all steps if there was nothing left to do."""


@dataclass(frozen=True)
class RunResult:
    """A finished run."""

    run_uri: str
    steps: int
    resumed_at: int
    """The step that this start went on from; 0 for a fresh run, ``steps`` if there was nothing left to do."""
    samples: int
    version: "Version"


def train(config: RunConfig, *, say: Say = print_line, tell: Callable[[News], None] | None = None) -> RunResult:
    """`fit`, and register the encoder.

    Raises:
        RaylensError: bad input, a cluster too small, or a diagnosis of what went wrong in training.
    """
    fitted = fit(config, say=say, tell=tell)
    from raylens.train.run.publish import publish  # with torch, of which this process makes no use before

    prepared = fitted.prepared
    version = publish(prepared, fitted.checkpoints)
    return RunResult(prepared.store.uri, prepared.steps, fitted.resumed_at, prepared.plan.samples, version)


def fit(
    config: RunConfig,
    *,
    say: Say = print_line,
    tell: Callable[[News], None] | None = None,
    interrupts: Interrupts | None = None,
) -> Fitted:
    """Run to the last step, from the newest checkpoint if there is one.

    Ray must be initialised. The same call again resumes, or finds that nothing is left to do.

    Args:
        config: the run.
        say: is given one line for each phase.
        tell: is given news of the workers as it comes.
        interrupts: ends the run from outside; by itself it listens to signals in the main thread.

    Raises:
        MissingExtraError: ``raylens[train]`` is not installed.
        RaylensError: bad input, a cluster too small, or a diagnosis of what went wrong in training.
    """
    require_extra("train", "training")
    check_room(config, say)
    audience = Audience(config, run_store(config), tell, say)
    prepared = prepare(config, say)
    checkpoints = Checkpoints(prepared.store)
    newest = checkpoints.newest()
    resumed_at = newest.step if newest else 0
    if resumed_at >= prepared.steps:
        say(f"nothing left to train: all {prepared.steps} steps were taken before")
        return Fitted(prepared, checkpoints, resumed_at)
    job = _job(prepared)
    if newest is not None:
        check_fits(job, newest)
    counts = " or ".join(map(str, config.worker_counts))
    say(f"starting {counts} workers: ZeRO {config.zero.stage}, global batch {config.global_batch}")
    room = RoomWatch(config, job.board.post.remote)

    def hear(news: News) -> None:
        room.hear(news)
        audience.tell(news)

    try:
        with audience, listening(job.board, hear), room:
            _run(job, prepared, interrupts or Interrupts(say, NOTICE))
            _check_end(checkpoints, prepared)
    finally:
        _report(prepared.store, say)
    return Fitted(prepared, checkpoints, resumed_at)


def _job(prepared: Prepared) -> WorkerJob:
    return WorkerJob(
        config=prepared.config,
        run_uri=prepared.store.uri,
        plan=prepared.plan,
        steps=prepared.steps,
        tokenizer_json=prepared.tokenizer.to_json(),
        preprocess=prepared.preprocess,
        board=board(),
        evaluation=prepared.evaluation,
    )


def _check_end(checkpoints: Checkpoints, prepared: Prepared) -> None:
    """Whether the last step was taken; a run that was asked to stop ends before it, with its state saved.

    Raises:
        KeyboardInterrupt: it was.
    """
    if max(checkpoints.steps(), default=0) < prepared.steps:
        raise KeyboardInterrupt


def _report(run: Store, say: Say) -> None:
    """However the run ended; nothing hangs on it."""
    try:
        write_training_report(run)
    except RaylensError as error:
        say(f"the report could not be written: {error}", "warning")
    else:
        say(f"report: {run.describe()}/{REPORT}")


def _run(job: WorkerJob, prepared: Prepared, interrupts: Interrupts) -> None:
    config, store = job.config, prepared.store
    filesystem, path = (store / "ray").arrow()
    counts, on_gpu, placement = config.worker_counts, config.resources.gpus_per_worker > 0, placement_of(config)
    trainer = Trainer(
        _run_worker,
        run=config,
        checkpoints=Checkpoints(store),
        board=job.board,
        stream=_stream_from_newest(job, prepared),
        decode_selector=placement.selector("decode"),
        train_loop_config=job,
        backend_config=ProcessGroupConfig(timeout_s=COLLECTIVE_TIMEOUT_SECONDS),
        scaling_config=ray.train.ScalingConfig(
            num_workers=counts[0] if len(counts) == 1 else (counts[0], counts[-1]),
            use_gpu=on_gpu,
            elastic_resize_monitor_interval_s=RESIZE_SECONDS,
            resources_per_worker={"CPU": config.resources.cpus_per_worker, "GPU": config.resources.gpus_per_worker},
            label_selector=placement.selector("train") or None,
        ),
        run_config=ray.train.RunConfig(
            name=f"{config.name}-{ray.get_runtime_context().get_job_id()}",
            storage_path=path,
            storage_filesystem=filesystem,
            callbacks=[WorkerStart(job.board)],
        ),
    )
    interrupts.stop = lambda: job.board.stop.remote()
    with interrupts:
        trainer.interrupts = interrupts
        try:
            trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise _diagnosis(error) from error
        except ray.exceptions.RayActorError as error:
            if interrupts.count > 1:
                raise KeyboardInterrupt from None
            raise WorkersLostError(
                f"Ray Train's controller was lost ({str(error).splitlines()[0]}). The checkpoints are kept: the same "
                "command resumes"
            ) from error


def _run_worker(job: WorkerJob) -> None:
    """Stand for the training function, so that whoever passes it on imports neither torch nor DeepSpeed."""
    from raylens.train.run.worker import run_worker

    run_worker(job)


def _stream_from_newest(job: WorkerJob, prepared: Prepared) -> Callable[[], Any]:
    config = job.config
    maker = UnitMaker(
        plan=job.plan,
        homes=tuple(manifest.home for manifest in prepared.manifests),
        run_uri=job.run_uri,
        preprocess=job.preprocess,
        tokenizer_json=job.tokenizer_json,
        context=config.model.text.context,
        crop_min_scale=config.data.crop_min_scale,
        max_pixels=config.data.max_pixels,
        check_hashes=config.data.check_hashes,
    )
    checkpoints = Checkpoints(prepared.store)

    def stream() -> Any:
        # Called whenever the workers start, also again after a failure: the stream begins where they do, because they
        # are told where it begins.
        newest = checkpoints.newest()
        start = newest.step if newest else 0
        ray.get(job.board.begin_at.remote(start))
        first, stop = start * config.global_batch, job.steps * config.global_batch
        rows = config.global_batch // workers_to_start(config.resources.workers)
        return training_stream(maker, start=first, stop=stop, worker_batch=rows)

    return stream


def _diagnosis(error: "ray.train.TrainingFailedError") -> RaylensError:
    failures = getattr(error, "worker_failures", {})
    for one in (error, *failures.values()):
        own = own_error(one)
        if own is not None:
            return own
    lines = [line for line in str(error).splitlines() if line.strip()]
    return WorkersLostError(
        f"training failed for good: {lines[-1] if lines else error!r}. Its checkpoints are kept: the same command "
        "resumes. The workers' logs are under /tmp/ray/session_latest/logs"
    )
