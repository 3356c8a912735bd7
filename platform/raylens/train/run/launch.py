"""A run on a Ray cluster, from a configuration to a registered encoder."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
import ray.train

from raylens.config import RunConfig
from raylens.data import BlockMaker, training_stream
from raylens.errors import RaylensError, WorkersLostError, own_error
from raylens.extras import require_extra
from raylens.interrupts import Interrupts
from raylens.messages import Say, print_line, warning
from raylens.storage import Store
from raylens.train.checkpoint.store import Checkpoints
from raylens.train.loop.events import RunEvent
from raylens.train.ray.driver_channel import EventForwarder, open_channel
from raylens.train.ray.process_group import ProcessGroupConfig
from raylens.train.ray.resource_monitor import ResourceMonitor
from raylens.train.ray.resources import check_resources, placement_of
from raylens.train.ray.trainer import Trainer, WorkerStart, workers_to_start
from raylens.train.run.event_bus import RunObservers
from raylens.train.run.prepare import PreparedRun, prepare, run_store
from raylens.train.run.worker_spec import WorkerSpec, check_fits
from raylens.train.runs.report import REPORT, write_training_report

if TYPE_CHECKING:
    from raylens.registry import Version

__all__ = ["FitResult", "RunResult", "fit", "train"]

NOTICE = "the state is saved after the current step"
COLLECTIVE_TIMEOUT_SECONDS = 300
RESIZE_SECONDS = 60.0
"""Seconds between two checks of whether the cluster has resources for more workers."""


@dataclass(frozen=True)
class FitResult:
    """A run that has taken its last step."""

    prepared: PreparedRun
    checkpoints: Checkpoints
    resumed_at: int
    """The step from which this start resumed; 0 for a new run, and all steps if nothing was left to do."""


@dataclass(frozen=True)
class RunResult:
    """A finished run, with its registered model."""

    run_uri: str
    steps: int
    resumed_at: int
    """The step from which this start resumed; 0 for a new run, and ``steps`` if nothing was left to do."""
    samples: int
    version: "Version"


def train(config: RunConfig, *, say: Say = print_line, on_event: Callable[[RunEvent], None] | None = None) -> RunResult:
    """Train as `fit` does, and register the encoder.

    Raises:
        RaylensError: the input is bad, the cluster is too small, or training failed; the message gives the diagnosis.
    """
    fitted = fit(config, say=say, on_event=on_event)
    from raylens.train.run.publish import publish  # imports torch, which this process does not need before

    prepared = fitted.prepared
    version = publish(prepared, fitted.checkpoints)
    return RunResult(prepared.store.uri, prepared.steps, fitted.resumed_at, prepared.plan.samples, version)


def fit(
    config: RunConfig,
    *,
    say: Say = print_line,
    on_event: Callable[[RunEvent], None] | None = None,
    interrupts: Interrupts | None = None,
) -> FitResult:
    """Train to the last step, from the newest checkpoint if there is one.

    Ray must be initialised. A repeated call resumes the run, or finds that nothing is left to do.

    Args:
        config: the configuration of the run.
        say: receives one line for each phase.
        on_event: receives the events of the workers.
        interrupts: ends the run from outside; by default, signals to the main thread do.

    Raises:
        MissingExtraError: ``raylens[train]`` is not installed.
        RaylensError: the input is bad, the cluster is too small, or training failed; the message gives the diagnosis.
    """
    require_extra("train", "training")
    check_resources(config, say)
    observers = RunObservers(config, run_store(config), on_event, say)
    prepared = prepare(config, say)
    checkpoints = Checkpoints(prepared.store)
    newest = checkpoints.newest()
    resumed_at = newest.step if newest else 0
    if resumed_at >= prepared.steps:
        say(f"nothing left to train: all {prepared.steps} steps have been taken")
        return FitResult(prepared, checkpoints, resumed_at)
    spec = _worker_spec(prepared)
    if newest is not None:
        check_fits(spec, newest)
    counts = " or ".join(map(str, config.worker_counts))
    say(f"starting {counts} workers: ZeRO {config.zero.stage}, global batch {config.global_batch}")
    monitor = ResourceMonitor(config, spec.channel.post.remote)

    def forward(event: RunEvent) -> None:
        monitor.on_event(event)
        observers.on_event(event)

    try:
        with observers, EventForwarder(spec.channel, forward), monitor:
            _run(spec, prepared, interrupts or Interrupts(say, NOTICE))
            _check_end(checkpoints, prepared)
    finally:
        _report(prepared.store, say)
    return FitResult(prepared, checkpoints, resumed_at)


def _worker_spec(prepared: PreparedRun) -> WorkerSpec:
    return WorkerSpec(
        config=prepared.config,
        run_uri=prepared.store.uri,
        plan=prepared.plan,
        steps=prepared.steps,
        tokenizer_json=prepared.tokenizer.to_json(),
        preprocess=prepared.preprocess,
        channel=open_channel(),
        evaluation=prepared.evaluation,
    )


def _check_end(checkpoints: Checkpoints, prepared: PreparedRun) -> None:
    """Check that the last step was taken; a run that was asked to stop saves its state and ends before it.

    Raises:
        KeyboardInterrupt: the run was asked to stop.
    """
    if max(checkpoints.steps(), default=0) < prepared.steps:
        raise KeyboardInterrupt


def _report(run: Store, say: Say) -> None:
    """Write the report, however the run ended; a failure is only a warning."""
    try:
        write_training_report(run)
    except RaylensError as error:
        say(warning(f"the report could not be written: {error}"))
    else:
        say(f"report: {run.describe()}/{REPORT}")


def _run(spec: WorkerSpec, prepared: PreparedRun, interrupts: Interrupts) -> None:
    config, store = spec.config, prepared.store
    filesystem, path = (store / "ray").arrow()
    counts, on_gpu, placement = config.worker_counts, config.resources.gpus_per_worker > 0, placement_of(config)
    trainer = Trainer(
        _run_worker,
        run=config,
        checkpoints=Checkpoints(store),
        channel=spec.channel,
        stream=_stream_from_newest(spec, prepared),
        decode_selector=placement.selector("decode"),
        train_loop_config=spec,
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
            callbacks=[WorkerStart(spec.channel)],
        ),
    )
    interrupts.stop = lambda: spec.channel.stop.remote()
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


def _run_worker(spec: WorkerSpec) -> None:
    """Run the training function; whoever pickles this function imports neither torch nor DeepSpeed."""
    from raylens.train.run.worker import run_worker

    run_worker(spec)


def _stream_from_newest(spec: WorkerSpec, prepared: PreparedRun) -> Callable[[], Any]:
    config = spec.config
    maker = BlockMaker(
        plan=spec.plan,
        homes=tuple(manifest.home for manifest in prepared.manifests),
        run_uri=spec.run_uri,
        preprocess=spec.preprocess,
        tokenizer_json=spec.tokenizer_json,
        context=config.model.text.context,
        crop_min_scale=config.data.crop_min_scale,
        max_pixels=config.data.max_pixels,
        check_hashes=config.data.check_hashes,
    )
    checkpoints = Checkpoints(prepared.store)

    def stream() -> Any:
        # Called whenever the workers start, also after a failure. They begin where the stream does, because the
        # channel tells them its first step.
        newest = checkpoints.newest()
        start = newest.step if newest else 0
        ray.get(spec.channel.begin_at.remote(start))
        first, stop = start * config.global_batch, spec.steps * config.global_batch
        rows = config.global_batch // workers_to_start(config.resources.workers)
        return training_stream(maker, start=first, stop=stop, worker_batch=rows)

    return stream


def _diagnosis(error: "ray.train.TrainingFailedError") -> RaylensError:
    failures = getattr(error, "worker_failures", {})
    for failure in (error, *failures.values()):
        own = own_error(failure)
        if own is not None:
            return own
    lines = [line for line in str(error).splitlines() if line.strip()]
    return WorkersLostError(
        f"training failed for good: {lines[-1] if lines else error!r}. Its checkpoints are kept: the same command "
        "resumes. The workers' logs are under /tmp/ray/session_latest/logs"
    )
