"""The page of `raylens models profile`: what a model costs in parameters, operations, memory and time."""

import json
from collections.abc import Iterator
from dataclasses import asdict

from raylens.estimate import model_costs
from raylens.estimate.throughput import throughput
from raylens.workloads.recipes import configure

__all__ = ["profile_text"]


def profile_text(name: str, batch: int, tokens: int, measure: bool, as_json: bool) -> Iterator[str]:
    """Yield lines with the costs of a recipe's or file's model, and with its speed here if ``measure``.

    Raises:
        ConfigError: there is no such recipe.
    """
    model = configure(name).model
    tokens = min(tokens, model.text.context)
    cost = model_costs(model, tokens)
    speed = throughput(model, batch, tokens) if measure else None
    if as_json:
        yield json.dumps({**asdict(cost), "tokens": tokens, **({} if speed is None else asdict(speed))})
        return
    millions = [count / 1e6 for count in (cost.image_parameters, cost.text_parameters)]
    yield f"{'':24}{'image tower':>14}{'text tower':>14}{'both':>10}"
    yield f"{'parameters, M':24}{millions[0]:14,.1f}{millions[1]:14,.1f}{sum(millions):10,.1f}"
    both = cost.image_gflops + cost.text_gflops
    yield f"{'forward GFLOP':24}{cost.image_gflops:14,.2f}{cost.text_gflops:14,.2f}{both:10,.2f}"
    yield f"one image of {model.image.size} px, one text of {tokens} tokens; a multiplication and an addition are two"
    yield f"kept for the backward pass: {cost.training_bytes / 2**20:,.0f} MiB a pair (fp32, no checkpointed blocks)"
    if speed is not None:
        yield (
            f"{speed.device}, batch {batch}, fp32: {speed.forward:,.1f} pairs/s forward, "
            f"{speed.training:,.1f} pairs/s training"
        )
