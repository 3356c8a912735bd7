"""How much training ASHA needs for what random search finds, on the digits' sweep: 24 configurations, 5 seeds.

    python -m benchmarks.sweep [--seeds 5] [--trials 24] [--curves curves.json]

Every configuration is trained to its end once, by the plain loop in this process, and evaluated as often as a trial of
`raylens sweep digits` would be. Random search is all of that. ASHA is Ray Tune's scheduler with the settings that
raylens gives it, shown those evaluations in the order in which two trials at a time would report them: it can only stop
a trial, so what it would have trained is a part of what was trained. Prints a JSON object: samples that ASHA had
trained on when it had a trial as good as random search's best, over all samples of random search. The same
configurations for both, in the same order.
"""

import argparse
import heapq
import json
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from ray.tune.schedulers import TrialScheduler

from benchmarks.machine import tell_machine
from benchmarks.objectives.efficiency import Pairs, accuracy_prompts, read, train
from raylens.config import RunConfig, validated
from raylens.inputs import Preprocess, Tokenizer
from raylens.storage import open_store
from raylens.tune import SweepConfig
from raylens.tune.search.candidates import candidates
from raylens.tune.search.schedulers import scheduler_of
from raylens.tune.space import Space
from raylens.workloads.quickstart.digits import pack_digits
from raylens.workloads.recipes.sweeps import SWEEPS

AT_A_TIME = 2
STEPS = 91
"""Eight epochs of the digits."""


@dataclass(frozen=True)
class Data:
    train: Pairs
    held_out: Pairs
    tokenizer: Tokenizer
    prompts_PT: torch.Tensor


def load() -> Data:
    run = SWEEPS["digits"]().run
    preprocess, context = Preprocess(size=run.model.image.size), run.model.text.context
    with tempfile.TemporaryDirectory() as folder:
        pack_digits(open_store(folder))
        pairs, tokenizer = read(Path(folder) / "train", preprocess, None, context)
        held_out, _ = read(Path(folder) / "heldout", preprocess, tokenizer, context)
    return Data(pairs, held_out, tokenizer, accuracy_prompts(tokenizer, context))


def sweep_of(seed: int, trials: int) -> SweepConfig:
    tree = SWEEPS["digits"]().model_dump(mode="json")
    tree |= {"search": {"kind": "random", "seed": seed}, "budget": {"trials": trials}}
    return validated(SweepConfig, tree)


def curves_of(config: SweepConfig, space: Space, data: Data) -> list[list[float]]:
    """Accuracy of each configuration at each of its evaluations."""
    every, found = config.run.evaluation.every_steps, []
    for number, values in enumerate(candidates(config, space)):
        run = validated(RunConfig, config.trial_tree(values))
        found.append(train(run, data.train, data.held_out, data.tokenizer, data.prompts_PT, STEPS, every))
        print(f"seed {config.search.seed}, trial {number}: {found[-1][-1]:.3f}", file=sys.stderr, flush=True)
    return found


def trained_until(config: SweepConfig, space: Space, curves: list[list[float]], wanted: float) -> tuple[int, int]:
    """Samples that the scheduler's trials had trained on when one was as good at its end, 0 if none was; and in all."""
    scheduler, batch, every = (
        scheduler_of(config, space, STEPS),
        config.run.global_batch,
        config.run.evaluation.every_steps,
    )
    waiting = list(range(len(curves)))
    running: list[tuple[int, int, int]] = []  # when it reports next, which trial, which of its evaluations
    trials = [SimpleNamespace(trial_id=str(number)) for number in waiting]
    total = reached = 0
    while waiting or running:
        while waiting and len(running) < AT_A_TIME:
            number = waiting.pop(0)
            scheduler.on_trial_add(None, trials[number])
            now = min((when for when, _, _ in running), default=0)
            heapq.heappush(running, (now + every, number, 0))
        when, number, place = heapq.heappop(running)
        step = min((place + 1) * every, STEPS)
        total += (step - place * every) * batch
        result = {config.metric: curves[number][place], "samples": step * batch, "steps": step}
        decision = scheduler.on_trial_result(None, trials[number], result)
        if step == STEPS:
            reached = reached or (total if curves[number][place] >= wanted else 0)
        elif decision == TrialScheduler.CONTINUE:
            heapq.heappush(running, (when + every, number, place + 1))
    return reached, total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--curves", type=Path, help="keep what was trained here, and take it from there if it exists")
    arguments = parser.parse_args()
    tell_machine(None)  # no workers: all is trained here, and no clock is in the claim
    kept: dict[str, Any] = json.loads(arguments.curves.read_text()) if _exists(arguments.curves) else {}
    data = None
    ratios, totals, missed = [], [], 0
    for seed in range(arguments.seeds):
        config = sweep_of(seed, arguments.trials)
        space = config.check(STEPS)
        if str(seed) not in kept:
            data = data or load()
            kept[str(seed)] = curves_of(config, space, data)
            if arguments.curves:
                arguments.curves.write_text(json.dumps(kept))
        curves = kept[str(seed)]
        wanted, whole = max(curve[-1] for curve in curves), len(curves) * STEPS * config.run.global_batch
        reached, total = trained_until(config, space, curves, wanted)
        totals.append(total / whole)
        missed += not reached
        # Not reached: all that was trained found less, which counts as more than random search needed.
        ratios.append(reached / whole if reached else float("inf"))
        print(
            f"seed {seed}: best {wanted:.3f}, reached after {ratios[-1]:.2f}, in all {totals[-1]:.2f}", file=sys.stderr
        )
    facts = {
        "claim": "asha_samples_over_random",
        "value": round(statistics.median(ratios), 3),
        "unit": "x",
        "peer": "random search, the same configurations trained to the end",
        "wanted": "<= 0.5",
        "seeds": [round(ratio, 3) if ratio != float("inf") else None for ratio in ratios],
        "not_reached": missed,
        "whole_sweep": round(statistics.median(totals), 3),
    }
    print(json.dumps(facts), flush=True)


def _exists(path: Path | None) -> bool:
    return path is not None and path.exists()


if __name__ == "__main__":
    main()
