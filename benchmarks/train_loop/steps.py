"""Seconds a step of the whole training loop beside a bare loop in torch on the same model, weights and batches.

    ours    two Ray Train workers, batches from Ray Data's stream, DeepSpeed ZeRO 1, a record of every step, checkpoints
    bare    two processes, DDP and ZeroRedundancyOptimizer, batches in memory, nothing else (bare.py)

Both take gloo, one thread a worker, fp32, AdamW with the same groups, and the loss over the global batch. First the
losses of some steps are compared: the work is the same. Then both run in turns, in fresh processes; the claim is the
median over rounds of the ratio of median step times. There are two cases (cases.py):

    whole           all of the stream is made beside the first steps, on the same two cores; images are small
    device_bound    as much data as may lies ahead of the steps that are measured, and no more is made than is taken

Of the second, also what the process that deals out the data took of a core. Prints one JSON object a claim.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.machine import tell_machine, worker_niceness
from benchmarks.train_loop.cases import CASES, EVERY, KEPT, WORKERS, Case, samples
from benchmarks.train_loop.raylens_run import Run, ours
from raylens.cluster import session
from raylens.config import RunConfig
from raylens.data.block import BlockMaker
from raylens.data.pack import pack
from raylens.messages import quiet
from raylens.storage import open_store
from raylens.train.run.prepare import prepare
from raylens.train.run.worker import build_model

HERE = Path(__file__).parent
AGREE = 1e-4
"""Relative: both compute in fp32, in another order."""
COORDINATOR = "SplitCoordinator"


def given_to_bare(config: RunConfig, file: Path) -> None:
    """The weights that the run begins with, and its first batches, over and over."""
    ready, batch = prepare(config, quiet), config.global_batch
    homes = tuple(manifest.home for manifest in ready.manifests)
    maker = BlockMaker(
        ready.plan, homes, ready.store.uri, ready.preprocess, ready.tokenizer.to_json(), config.model.text.context,
        config.data.crop_min_scale, config.data.max_pixels,
    )  # fmt: skip
    blocks = [maker.make(step * batch, (step + 1) * batch) for step in range(KEPT)]
    batches = [(torch.from_numpy(block["image"]), torch.from_numpy(block["ids"])) for block in blocks]
    model = build_model(config, ready.tokenizer, ready.preprocess)
    described = {"config": config, "end_id": ready.tokenizer.end_id, "preprocess": ready.preprocess}
    torch.save({"batches": batches, "weights": model.state_dict(), **described}, file)


def bare(folder: Path, steps: int) -> Run:
    """What the bare loop saw of each step, as records of every few steps would have it."""
    meeting = folder / "meeting"
    meeting.unlink(missing_ok=True)
    script = [sys.executable, str(HERE / "bare.py")]
    ranks = [
        subprocess.Popen([*script, str(rank), str(WORKERS), str(folder), str(steps)], stdout=subprocess.PIPE, text=True)
        for rank in range(WORKERS)
    ]
    outputs = [rank.communicate()[0] for rank in ranks]
    if any(rank.returncode for rank in ranks):
        raise SystemExit("the bare loop failed")
    found: dict[str, list[float]] = json.loads(outputs[0].splitlines()[-1])
    seconds = [statistics.mean(found["seconds"][at : at + EVERY]) for at in range(0, len(found["seconds"]), EVERY)]
    return Run(found["losses"][EVERY - 1 :: EVERY], seconds, [])


def check_same_work(first: Run, second: Run) -> float:
    """How far the losses of the first record are apart.

    Raises:
        SystemExit: too far.
    """
    worst = abs(first.losses[0] - second.losses[0]) / abs(second.losses[0])
    if not worst <= AGREE:
        raise SystemExit(f"the losses of the two loops differ by {worst:.1e}: they do not do the same work")
    return worst


def rounds_of(case: Case, folder: Path, rounds: int) -> Iterator[tuple[Run, Run]]:
    """Both sides, in turns."""
    with session(num_cpus=4):
        tell_machine(worker_niceness())
        given_to_bare(case.config(folder, "first"), folder / "given.pt")
    for number in range(rounds):
        # The bare loop begins from the same step; more of its steps would only be the same again.
        pair = ours(case, folder, f"round-{number}"), bare(folder, case.steps)
        seen = [round(statistics.median(side.seconds[case.left_out :]), 4) for side in pair]
        wait = round(statistics.mean(pair[0].data_wait[case.left_out :]), 4)
        cores = {name: round(share, 3) for name, share in pair[0].cores.items()}
        print(f"# {case.name}: ours, bare {seen}, data wait {wait}, cores {cores}", file=sys.stderr, flush=True)
        yield pair


def claim(case: Case, name: str, values: list[float], unit: str, peer: str, wanted: str, **more: object) -> None:
    figures = {"claim": name, "value": round(statistics.median(values), 3), "unit": unit, "peer": peer}
    spread = [round(min(values), 3), round(max(values), 3)]
    print(json.dumps({**figures, "wanted": wanted, "case": case.name, "spread": spread, **more}), flush=True)


def measure(case: Case, folder: Path, rounds: int) -> None:
    """Print the claims of a case."""
    pairs = list(rounds_of(case, folder, rounds))
    worst = max(check_same_work(*pair) for pair in pairs)
    medians = [[statistics.median(side.seconds[case.left_out :]) for side in pair] for pair in pairs]
    means = [[statistics.mean(side.seconds[case.left_out :]) for side in pair] for pair in pairs]
    claim(
        case, "step_time_over_bare", [one / other for one, other in medians], "x",
        f"torch {torch.__version__} DDP + ZeroRedundancyOptimizer", case.wanted,
        means_with_checkpoints=round(statistics.median(one / other for one, other in means), 3),
        step_seconds=[[round(each, 4) for each in pair] for pair in medians],
        losses_agree_to=f"{worst:.1e}",
    )  # fmt: skip
    if case.steps < case.planned:
        shares = [run.cores[COORDINATOR] for run, _ in pairs]
        others = {
            name: round(statistics.median(run.cores.get(name, 0.0) for run, _ in pairs), 3)
            for name in pairs[0][0].cores
        }
        claim(case, "coordinator_core_share", shares, "cores", "a process that waits: 0", "<= 0.05", cores=others)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", choices=[case.name for case in CASES], help="one of them alone")
    chosen = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    for case in CASES:
        if chosen.case in (None, case.name):
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                pack(samples(KEPT * 128), open_store(folder / "shards"), per_shard=128)
                measure(case, folder, chosen.rounds)


if __name__ == "__main__":
    main()
