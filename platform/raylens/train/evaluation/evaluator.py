"""When a run is evaluated, and what is heard of it."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from raylens.background import in_background
from raylens.errors import message_of
from raylens.train.collective.coordinator import Control
from raylens.train.engine.forward import Forward
from raylens.train.evaluation.embed import Embedding, embed_images, embed_pairs, embed_texts
from raylens.train.evaluation.eval_data import HeldSets, Share, held_labelled, held_pairs, held_prompts
from raylens.train.evaluation.metrics import Rows, pair_figures, zero_shot_figure
from raylens.train.evaluation.pending import Finding, Working
from raylens.train.run.worker_spec import WorkerJob

__all__ = ["Evaluator"]

LOOK_SECONDS = 0.2
READER = "raylens-held"


@dataclass(frozen=True)
class Embedded:
    """What a worker sends to the first."""

    pairs: tuple[Rows, float, float | None] | None
    """Rows, the logarithm of the logit scale, and the bias."""
    labelled: list[tuple[Rows, Rows]]
    """Images and prompts."""
    unreadable: int


class Evaluator:
    """Of one worker."""

    def __init__(self, job: WorkerJob, control: Control) -> None:
        self._job, self._control = job, control
        self._sets = job.evaluation
        # What is evaluated on is read from the start of the run on.
        self._loading = in_background(self._read, READER) if self._sets else None
        self._working: Working | None = None
        self._unheard: list[Working] = []

    def due(self, step: int, *, saving: bool) -> bool:
        """Whether there is an evaluation after this step, which a checkpoint follows or not."""
        config = self._job.config
        if not self._sets:
            return False
        # A checkpoint that is to be compared with others needs figures of its own.
        compared = saving and config.checkpoint.keep_best > 0
        return compared or step % config.evaluation.every_steps == 0 or step == self._job.steps

    def begin(self, step: int, forward: Forward, batch: int, device: torch.device) -> float:
        """Embed everything; the first worker then works the figures out while training goes on. Collective.

        Args:
            step: after which.
            forward: the module, ready for evaluation.
            batch: samples that go through it at a time.
            device: of the module.

        Returns:
            Seconds that it took.
        """
        began = time.monotonic()
        self.wait()  # embeddings of two evaluations at a time might not fit the memory
        assert self._loading is not None
        # Asked again and again, because collectives have a time limit and reading has none.
        while self._control.most([int(not self._loading.done())])[0]:
            time.sleep(LOOK_SECONDS)
        error = self._loading.exception()
        failures = [str(one) for one in self._control.all_of(message_of(error) if error else "") if one]
        if error is not None:  # for the next time
            self._loading = in_background(self._read, READER)
        if failures:
            seconds = time.monotonic() - began
            self._work(step, lambda: Finding(step, {}, seconds, failures[0]))
            return seconds
        held = self._loading.result()
        embedding = Embedding(forward, batch, device, self._control.most)
        pairs = None if held.pairs is None else embed_pairs(embedding, held.pairs)
        labelled = [(embed_images(embedding, images), embed_texts(embedding, texts)) for images, texts in held.labelled]
        gathered = self._control.to_first(Embedded(pairs, labelled, held.unreadable))
        seconds = time.monotonic() - began
        if gathered is not None:
            self._work(step, lambda: self._found(step, gathered, seconds))
        return seconds

    def _work(self, step: int, work: Callable[[], Finding]) -> None:
        if self._control.rank == 0:
            self._working = Working(step, in_background(work, "raylens-figures"))
            self._unheard.append(self._working)

    def poll(self) -> Finding | None:
        """On the first worker, what was found, once it is; then nothing more."""
        if not self._unheard or not self._unheard[0].future.done():
            return None
        return self._unheard.pop(0).finding()

    def wait(self) -> None:
        """Until what is under way is worked out."""
        if self._working is not None:
            self._working.finding()

    def later(self, step: int) -> Callable[[], dict[str, float]]:
        """For the first worker to ask in another thread: metrics after this step, once they are worked out, or none."""
        working = self._working
        return lambda: working.finding().metrics if working is not None and working.step == step else {}

    def _read(self) -> HeldSets:
        job, sets, model = self._job, self._sets, self._job.config.model
        share = Share(self._control.rank, self._control.workers)
        tokenizer = job.tokenizer
        pairs = None
        if sets.pairs_home is not None:
            pairs = held_pairs(sets.pairs_home, sets.pairs, share, job.preprocess, tokenizer, model.text.context)
        labelled = tuple(
            (held_labelled(one, share, job.preprocess), held_prompts(one, share, tokenizer, model.text.context))
            for _, one in sets.labelled
        )
        return HeldSets(pairs, labelled)

    def _found(self, step: int, parts: list[Embedded], seconds: float) -> Finding:
        metrics, problem = self._metrics(parts), ""
        broken = [name for name, value in metrics.items() if not np.isfinite(value)]
        unreadable = sum(part.unreadable for part in parts)
        if broken:
            problem = f"{', '.join(broken)}: not finite"
        elif unreadable:
            problem = f"{unreadable} images cannot be read and are left out"
        finite = {name: value for name, value in metrics.items() if name not in broken}
        return Finding(step, finite, seconds, problem)

    def _metrics(self, parts: list[Embedded]) -> dict[str, float]:
        config = self._job.config
        metrics: dict[str, float] = {}
        if parts[0].pairs is not None:
            rows = Rows.joined([part.pairs[0] for part in parts if part.pairs is not None])
            if "loss" in rows.columns:
                metrics["validation_loss"] = float(rows.columns["loss"].astype(np.float64).mean())
            else:
                _, log_scale, bias = parts[0].pairs
                metrics |= pair_figures(rows, config.objective, log_scale, bias, config.global_batch)
        for at, (name, one) in enumerate(self._sets.labelled):
            images, prompts = (Rows.joined([part.labelled[at][which] for part in parts]) for which in (0, 1))
            accuracy = zero_shot_figure(images, prompts, one.classes)
            metrics |= {} if accuracy is None else {f"zero_shot_{name}": accuracy}
        return metrics
