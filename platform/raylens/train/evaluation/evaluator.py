"""The evaluations of a run: when they are due, and their results."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from raylens.background import in_background
from raylens.config import RunConfig
from raylens.errors import message_of
from raylens.evaluate import Metric
from raylens.inputs import Preprocess, Tokenizer
from raylens.train.collective.coordinator import Coordinator
from raylens.train.engine.forward import Forward
from raylens.train.evaluation.embed import Embedder, embed_images, embed_pairs, embed_texts
from raylens.train.evaluation.eval_data import EvalData, WorkerShare, read_labelled, read_pairs, read_prompts
from raylens.train.evaluation.eval_sets import EvalSets
from raylens.train.evaluation.metrics import Rows, pair_metrics, zero_shot_accuracy
from raylens.train.evaluation.pending import EvalResult, PendingEval

__all__ = ["Evaluator"]

LOOK_SECONDS = 0.2
READER = "raylens-eval-data"


@dataclass(frozen=True)
class Embedded:
    """The embeddings that a worker sends to the first worker."""

    pairs: tuple[Rows, float, float | None] | None
    """The rows, the logarithm of the logit scale, and the bias."""
    labelled: list[tuple[Rows, Rows]]
    """The rows of images and of prompts of each labelled set."""
    unreadable: int


class Evaluator:
    """Evaluates the model on one worker, together with the others.

    Args:
        config: the configuration of the run.
        sets: the evaluation sets.
        tokenizer: the tokenizer of the run.
        preprocess: the image preprocessing of the run.
        coordinator: the connection to the other workers.
        steps: the steps of the whole run.
    """

    def __init__(
        self,
        config: RunConfig,
        sets: EvalSets,
        tokenizer: Tokenizer,
        preprocess: Preprocess,
        coordinator: Coordinator,
        *,
        steps: int,
    ) -> None:
        self._config, self._sets, self._steps, self._coordinator = config, sets, steps, coordinator
        self._tokenizer, self._preprocess = tokenizer, preprocess
        # The data is read from the start of the run on.
        self._reading = in_background(self._read, READER) if self._sets else None
        self._pending: PendingEval | None = None
        self._unreported: list[PendingEval] = []

    def due(self, step: int, *, saving: bool) -> bool:
        """Return whether an evaluation is due after this step; ``saving`` tells whether a checkpoint follows."""
        config = self._config
        if not self._sets:
            return False
        # A checkpoint that is compared with others needs metrics of its own.
        compared = saving and config.checkpoint.keep_best > 0
        return compared or step % config.evaluation.every_steps == 0 or step == self._steps

    def begin(self, step: int, forward: Forward, batch: int, device: torch.device) -> float:
        """Embed all evaluation data; the first worker then computes the metrics while training continues. Collective.

        Args:
            step: the step after which the model is evaluated.
            forward: the module, in evaluation mode.
            batch: the number of samples that pass through it at a time.
            device: the device of the module.

        Returns:
            The seconds for which training was paused.
        """
        began = time.monotonic()
        self.wait()  # the embeddings of two evaluations may not fit into memory
        assert self._reading is not None
        # Polled, because a collective has a time limit and reading has none.
        while self._coordinator.all_max([int(not self._reading.done())])[0]:
            time.sleep(LOOK_SECONDS)
        error = self._reading.exception()
        failures = [str(text) for text in self._coordinator.all_gather(message_of(error) if error else "") if text]
        if failures:
            if error is not None:  # the next evaluation tries again
                self._reading = in_background(self._read, READER)
            seconds = time.monotonic() - began
            self._compute(step, lambda: EvalResult(step, (), seconds, failures[0]))
            return seconds
        data = self._reading.result()
        embedder = Embedder(forward, batch, device, self._coordinator.all_max)
        pairs = None if data.pairs is None else embed_pairs(embedder, data.pairs)
        labelled = [(embed_images(embedder, images), embed_texts(embedder, texts)) for images, texts in data.labelled]
        gathered = self._coordinator.gather(Embedded(pairs, labelled, data.unreadable))
        seconds = time.monotonic() - began
        if gathered is not None:
            self._compute(step, lambda: self._result(step, gathered, seconds))
        return seconds

    def _compute(self, step: int, work: Callable[[], EvalResult]) -> None:
        if self._coordinator.rank == 0:
            self._pending = PendingEval(step, in_background(work, "raylens-eval"))
            self._unreported.append(self._pending)

    def poll(self) -> EvalResult | None:
        """Return the next result on the first worker, once, when its metrics have been computed; otherwise None."""
        if not self._unreported or not self._unreported[0].future.done():
            return None
        return self._unreported.pop(0).result()

    def wait(self) -> None:
        """Wait until the metrics of the last evaluation have been computed."""
        if self._pending is not None:
            self._pending.result()

    def later(self, step: int) -> Callable[[], tuple[Metric, ...]]:
        """Return a function that waits for the metrics after this step; the first worker calls it in another thread."""
        pending = self._pending
        return lambda: pending.result().metrics if pending is not None and pending.step == step else ()

    def _read(self) -> EvalData:
        sets, preprocess, tokenizer = self._sets, self._preprocess, self._tokenizer
        context = self._config.model.text.context
        share = WorkerShare(self._coordinator.rank, self._coordinator.workers)
        pairs = None
        if sets.pairs_uri is not None:
            pairs = read_pairs(sets.pairs_uri, sets.pairs, share, preprocess, tokenizer, context)
        labelled = tuple(
            (read_labelled(shards, share, preprocess), read_prompts(shards, share, tokenizer, context))
            for _, shards in sets.labelled
        )
        return EvalData(pairs, labelled)

    def _result(self, step: int, parts: list[Embedded], seconds: float) -> EvalResult:
        metrics, problem = list(self._metrics(parts)), ""
        broken = [metric.name for metric in metrics if not np.isfinite(metric.value)]
        unreadable = sum(part.unreadable for part in parts)
        if broken:
            problem = f"{', '.join(broken)}: not finite"
        elif unreadable:
            problem = f"{unreadable} images cannot be read and are not evaluated"
        finite = tuple(metric for metric in metrics if metric.name not in broken)
        return EvalResult(step, finite, seconds, problem)

    def _metrics(self, parts: list[Embedded]) -> Iterator[Metric]:
        config = self._config
        if parts[0].pairs is not None:
            rows = Rows.join([part.pairs[0] for part in parts if part.pairs is not None])
            if "loss" in rows.columns:
                yield Metric("validation_loss", float(rows.columns["loss"].astype(np.float64).mean()), "min")
            else:
                _, log_scale, bias = parts[0].pairs
                yield from pair_metrics(rows, config.objective, log_scale, bias, config.global_batch)
        for at, (name, shards) in enumerate(self._sets.labelled):
            images, prompts = (Rows.join([part.labelled[at][which] for part in parts]) for which in (0, 1))
            accuracy = zero_shot_accuracy(images, prompts, shards.classes)
            if accuracy is not None:
                yield Metric(f"zero_shot_{name}", accuracy, "max")
