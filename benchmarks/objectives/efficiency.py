"""Zero-shot accuracy against images seen for four objectives on the digit scans (Radford et al. 2021, figure 2).

    python -m benchmarks.objectives.efficiency [--figure docs/images/objective_efficiency.svg] [--seeds 3]

The same image tower, data, batches, optimiser and schedule; predicting captions, predicting bags of words, and
contrasting with either text tower. Prints a JSON object a claim: how many images a prediction needs for the accuracy
that contrasting reaches first, as a ratio. The paper's figures are for 400 million pairs; these show the tool, on ten
classes and templated captions.
"""

import argparse
import itertools
import json
import statistics
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from raylens.config import BagOfWordsConfig, ObjectiveConfig, RunConfig, ScaleConfig, TextTransformerConfig
from raylens.inputs import Preprocess, Tokenizer, fill_templates
from raylens.models import DualEncoder, ZeroShotClassifier, caption_scores
from raylens.storage import open_store
from raylens.train.engine.forward import PairForward, build_forward, pair_loss
from raylens.train.engine.gradcache import MicroBatch, accumulate_backward, gradcache_backward
from raylens.train.engine.optimizer import build_optimizer, set_learning_rates
from raylens.train.engine.skip_nonfinite import skip_nonfinite
from raylens.train.loop.schedule import TrainingProgress
from raylens.workloads.quickstart.digits import CLASSES, TEMPLATES, pack_digits
from raylens.workloads.recipes.digits import digits

BATCH, STEPS, EVERY = 128, 600, 20
REACHED = 0.9
OBJECTIVES = {
    "caption prediction": ("caption", "transformer"),
    "bag-of-words prediction": ("bag_of_words", "cbow"),
    "bag-of-words contrastive": ("softmax", "cbow"),
    "transformer contrastive": ("softmax", "transformer"),
}


class Pairs(NamedTuple):
    image_NSSC: Tensor
    ids_NT: Tensor
    label_N: Tensor


def read(folder: Path, preprocess: Preprocess, tokenizer: Tokenizer | None, context: int) -> tuple[Pairs, Tokenizer]:
    """All pairs of a folder of shards, in memory."""
    members: dict[str, dict[str, bytes]] = {}
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                stream = tar.extractfile(member)
                members.setdefault(key, {})[suffix] = stream.read() if stream else b""
    samples = [members[key] for key in sorted(members)]
    texts = [sample["txt"].decode() for sample in samples]
    tokenizer = tokenizer or Tokenizer.train(texts, digits().model.text.vocab)
    images = np.stack([preprocess(sample["png"]) for sample in samples])
    labels = torch.tensor([json.loads(sample["json"])["label"] for sample in samples])
    return Pairs(torch.from_numpy(images), torch.from_numpy(tokenizer(texts, context)[0]), labels), tokenizer


def accuracy_prompts(tokenizer: Tokenizer, context: int) -> Tensor:
    """The prompts of all classes, one after the other."""
    prompts = [prompt for of_class in fill_templates(CLASSES, TEMPLATES) for prompt in of_class]
    return torch.from_numpy(tokenizer(prompts, context)[0])


def config_of(kind: str, tower: str, seed: int) -> RunConfig:
    base = digits()
    text: Any = base.model.text
    assert isinstance(text, TextTransformerConfig)
    if tower == "cbow":
        text = BagOfWordsConfig(context=text.context, vocab=text.vocab, width=text.width)
    objective = ObjectiveConfig.model_validate({"kind": kind})
    model = base.model.model_copy(update={"text": text})
    changes = {"model": model, "objective": objective, "seed": seed, "scale": ScaleConfig(workers=1)}
    return base.model_copy(update={**changes, "global_batch": BATCH})


@torch.no_grad()
def accuracy(model: DualEncoder, held_out: Pairs, prompts_PT: Tensor, kind: str) -> float:
    """Zero-shot, with all templates."""
    model.eval()
    image_ND = torch.cat([model.encode_image(part) for part in held_out.image_NSSC.split(128)])
    each = len(TEMPLATES)
    if kind == "caption":
        logits = caption_scores(model, image_ND, prompts_PT, [each] * len(CLASSES))
    else:
        text_PD = model.encode_text(prompts_PT)
        names = [[str(number * each + prompt) for prompt in range(each)] for number in range(len(CLASSES))]
        encode = lambda flat: text_PD[torch.tensor([int(name) for name in flat])]  # noqa: E731
        logits = ZeroShotClassifier.build(names, encode, 1.0).logits(image_ND)
    model.train()
    return float((logits.argmax(1) == held_out.label_N).float().mean())


def train(
    config: RunConfig,
    pairs: Pairs,
    held_out: Pairs,
    tokenizer: Tokenizer,
    prompts_PT: Tensor,
    steps: int = STEPS,
    every: int = EVERY,
) -> list[float]:
    """Accuracy after every ``every`` steps, and after the last."""
    torch.manual_seed(config.seed)
    model = DualEncoder(
        config.model,
        end_id=tokenizer.end_id,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        temperature=1.0 / config.objective.initial_scale,
    )
    forward = build_forward(model, config)
    optimizer = skip_nonfinite(build_optimizer(forward, config.optim), config.optim.clip_norm)
    draw = np.random.default_rng(config.seed)
    order = itertools.chain.from_iterable(iter(lambda: draw.permutation(len(pairs.label_N)).tolist(), None))
    found = []
    for step in range(steps):
        rows = torch.tensor(list(itertools.islice(order, BATCH)))
        set_learning_rates(optimizer, config.optim, TrainingProgress(step, steps))
        optimizer.zero_grad()
        micro = [MicroBatch(pairs.image_NSSC[rows], pairs.ids_NT[rows], rows)]
        if isinstance(forward, PairForward):
            gradcache_backward(
                forward, micro, lambda of: pair_loss(of, config.objective), lambda loss, _: loss.backward()
            )
        else:
            accumulate_backward(forward, micro, lambda loss, _: loss.backward())
        optimizer.step()
        if (step + 1) % every == 0 or step + 1 == steps:
            found.append(accuracy(model, held_out, prompts_PT, config.objective.kind))
    return found


def images_to(curve: list[float], level: float) -> float | None:
    """Images seen when a curve first reaches a level; None if it does not."""
    return next(((number + 1) * EVERY * BATCH for number, value in enumerate(curve) if value >= level), None)


def draw(curves: dict[str, list[list[float]]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "raylens"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    seen = [(number + 1) * EVERY * BATCH for number in range(STEPS // EVERY)]
    for name, of_seeds in curves.items():
        axes.plot(seen, [statistics.median(values) for values in zip(*of_seeds, strict=True)], label=name)
    axes.set(xlabel="images seen", ylabel="zero-shot accuracy", ylim=(0, 1))
    axes.set_title("Digit scans, held out; median over seeds")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure", type=Path, help="draw the curves to a file")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    preprocess, context = Preprocess(size=digits().model.image.size), digits().model.text.context
    with tempfile.TemporaryDirectory() as folder:
        pack_digits(open_store(folder))
        pairs, tokenizer = read(Path(folder) / "train", preprocess, None, context)
        held_out, _ = read(Path(folder) / "heldout", preprocess, tokenizer, context)
    prompts_PT = accuracy_prompts(tokenizer, context)
    curves: dict[str, list[list[float]]] = {name: [] for name in OBJECTIVES}
    for seed, (name, (kind, tower)) in itertools.product(range(arguments.seeds), OBJECTIVES.items()):
        curves[name].append(train(config_of(kind, tower, seed), pairs, held_out, tokenizer, prompts_PT))
        print(f"seed {seed}, {name}: {[round(value, 3) for value in curves[name][-1]]}", file=sys.stderr, flush=True)
    for name in ("caption prediction", "bag-of-words prediction"):
        ratios = [
            needed / reached
            for curve, best in zip(curves[name], curves["bag-of-words contrastive"], strict=True)
            if (needed := images_to(curve, REACHED)) and (reached := images_to(best, REACHED))
        ]
        facts = {
            "claim": f"images_to_90_{name.replace(' ', '_').replace('-', '_')}_over_contrastive",
            "value": round(statistics.median(ratios), 2) if ratios else None,
            "unit": "x",
            "peer": "bag-of-words contrastive",
            "reached_by": f"{len(ratios)} of {arguments.seeds} seeds",
            "last": {key: round(statistics.median(curve[-1] for curve in of), 3) for key, of in curves.items()},
        }
        print(json.dumps(facts), flush=True)
    if arguments.figure:
        draw(curves, arguments.figure)


if __name__ == "__main__":
    main()
