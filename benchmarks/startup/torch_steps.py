"""The steps of the quickstart in plain torch, in this process: what its training would take without a platform."""

import time

import torch
from torch.nn import functional

from raylens.inputs import Preprocess
from raylens.models import DualEncoder
from raylens.train.engine.optimizer import parameter_groups
from raylens.workloads.recipes.digits import digits

PAIRS = 1441
"""Scans that the quickstart trains on."""


def seconds_of_steps() -> float:
    """Seconds of all steps, with the recipe's model and batch, on pictures that are at hand."""
    config = digits()
    steps, size, context = (
        config.length.steps(PAIRS, config.global_batch),
        config.model.image.size,
        config.model.text.context,
    )
    preprocess = Preprocess(size=size)
    model = DualEncoder(config.model, end_id=1, mean=preprocess.mean, std=preprocess.std)
    groups = [
        {"params": one["params"], "weight_decay": one["weight_decay"]} for one in parameter_groups(model, config.optim)
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.optim.peak_lr)
    images = torch.randint(0, 256, (config.global_batch, size, size, 3), dtype=torch.uint8)
    ids = torch.randint(2, config.model.text.vocab, (config.global_batch, context), dtype=torch.int32)
    ids[:, -1] = 1
    target = torch.arange(config.global_batch)
    began = time.monotonic()
    for _ in range(steps):
        image_BD, text_BD, log_scale, _ = model(images, ids)
        logits = log_scale.exp() * image_BD @ text_BD.T
        loss = (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return time.monotonic() - began
