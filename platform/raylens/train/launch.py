"""A run on a Ray cluster, from a configuration to a registered encoder."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
import ray.train.torch

from raylens.config import RunConfig, ScaleConfig
from raylens.data.stream import execution_options, training_stream
from raylens.data.unit import UnitMaker
from raylens.errors import ClusterError, RaylensError, TrainingError, own_error
from raylens.registry import Version
from raylens.train.checkpoint import Checkpoints
from raylens.train.export import publish
from raylens.train.interrupt import interrupts_kept
from raylens.train.prepare import Prepared, prepare
from raylens.train.progress import News, Restarting, board, listening
from raylens.train.worker import WorkerJob, check_fits, run_worker

__all__ = ["RunResult", "train"]

COLLECTIVE_TIMEOUT_SECONDS = 300
DATA_CPUS = 1
"""CPUs that must be left for the stream; without one, training and data wait for each other for ever."""


@dataclass(frozen=True)
class RunResult:
    """A finished run."""

    run_uri: str
    steps: int
    resumed_at: int
    """The step that this start went on from; 0 for a fresh run, ``steps`` if there was nothing left to do."""
    samples: int
    version: Version


def train(
    config: RunConfig, *, say: Callable[[str], None] = print, tell: Callable[[News], None] | None = None
) -> RunResult:
    """Run to the last step, from the newest checkpoint if there is one, and register the encoder.

    Ray must be initialised. The same call again resumes, or finds that nothing is left to do.

    Args:
        config: the run.
        say: is given one line for each phase.
        tell: is given news of the workers as it comes.

    Raises:
        RaylensError: bad input, a cluster too small, or a diagnosis of what went wrong in training.
    """
    _check_cluster(config.scale)
    prepared = prepare(config, say)
    checkpoints = Checkpoints(prepared.store)
    newest = checkpoints.newest()
    resumed_at = newest.step if newest else 0
    news = board()
    job = WorkerJob(
        config=config,
        run_uri=prepared.store.uri,
        plan=prepared.plan,
        steps=prepared.steps,
        tokenizer_json=prepared.tokenizer.to_json(),
        preprocess=prepared.preprocess,
        board=news,
    )
    if newest is not None:
        check_fits(job, newest)
    if resumed_at < prepared.steps:
        say(f"starting {config.scale.workers} workers: ZeRO {config.zero.stage}, global batch {config.global_batch}")
        with listening(news, tell or (lambda _: None)):
            _fit(job, prepared)
    else:
        say(f"nothing left to train: all {prepared.steps} steps were taken before")
    version = publish(prepared, checkpoints)
    return RunResult(prepared.store.uri, prepared.steps, resumed_at, prepared.plan.samples, version)


def _check_cluster(scale: ScaleConfig) -> None:
    """Say at once what Ray would wait for for ever."""
    have = ray.cluster_resources()
    for what, each, extra in (("CPU", scale.cpus_per_worker, DATA_CPUS), ("GPU", scale.gpus_per_worker, 0)):
        wanted = scale.workers * each + extra
        if have.get(what, 0.0) < wanted:
            raise ClusterError(
                f"scale.workers = {scale.workers} with scale.{what.lower()}s_per_worker = {each} need {wanted} {what}s"
                f"{f' ({extra} of them to read data)' if extra else ''}, the cluster has {have.get(what, 0.0):g}: "
                "lower scale.workers, or use a larger cluster (--num-cpus declares more logical CPUs on one machine)"
            )


def _fit(job: WorkerJob, prepared: Prepared) -> None:
    config, store = job.config, prepared.store
    filesystem, path = (store / "ray").arrow()
    trainer = ray.train.torch.TorchTrainer(
        run_worker,
        train_loop_config=job,
        datasets={"train": _stream_from_newest(job, prepared)},
        dataset_config=ray.train.DataConfig(execution_options=execution_options()),
        torch_config=ray.train.torch.TorchConfig(timeout_s=COLLECTIVE_TIMEOUT_SECONDS),
        scaling_config=ray.train.ScalingConfig(
            num_workers=config.scale.workers,
            use_gpu=config.scale.gpus_per_worker > 0,
            resources_per_worker={"CPU": config.scale.cpus_per_worker, "GPU": config.scale.gpus_per_worker},
        ),
        run_config=ray.train.RunConfig(
            name=f"{config.name}-{ray.get_runtime_context().get_job_id()}",
            storage_path=path,
            storage_filesystem=filesystem,
            # An infeasible request would be tried again for ever without the second limit.
            failure_config=ray.train.FailureConfig(max_failures=config.scale.max_failures, controller_failure_limit=3),
            worker_runtime_env={"env_vars": {} if config.scale.gpus_per_worker else {"DS_ACCELERATOR": "cpu"}},
            callbacks=[_Failures(job.board)],
        ),
    )
    with interrupts_kept():
        try:
            trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise _diagnosis(error) from error


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
        # Called whenever the workers start, also again after a failure: the stream begins where they do.
        newest = checkpoints.newest()
        start = newest.cursor.position if newest else 0
        stop = job.steps * config.global_batch
        return training_stream(maker, start=start, stop=stop, worker_batch=config.worker_batch)

    return stream


class _Failures(ray.train.UserCallback):  # type: ignore[misc] # Ray is untyped here
    """Tells of restarts, and ends the run at once on an error that would only come again."""

    def __init__(self, news: Any) -> None:
        self._board = news

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:  # noqa: ARG002
        for error in worker_exceptions.values():
            own = own_error(error)
            if own is not None:
                raise own
        rank, error = next(iter(worker_exceptions.items()))
        self._board.post.remote(Restarting(f"worker {rank}: {str(error).strip().splitlines()[0]}"))


def _diagnosis(error: "ray.train.TrainingFailedError") -> RaylensError:
    failures = getattr(error, "worker_failures", {})
    for one in (error, *failures.values()):
        own = own_error(one)
        if own is not None:
            return own
    lines = [line for line in str(error).splitlines() if line.strip()]
    return TrainingError(
        f"training failed for good: {lines[-1] if lines else error!r}. Its checkpoints are kept: the same command "
        "resumes. The workers' logs are under /tmp/ray/session_latest/logs"
    )
