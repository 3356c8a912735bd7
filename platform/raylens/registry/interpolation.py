"""Interpolation between a model and its fine-tuned version.

Wortsman et al. 2022, "Robust fine-tuning of zero-shot models".
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from raylens.config import differences
from raylens.errors import BundleError, ConfigError
from raylens.registry.bundle import Bundle
from raylens.registry.lineage import Interpolation, Lineage

__all__ = ["interpolate"]


def interpolate(base: Bundle, tuned: Bundle, alpha: float) -> Bundle:
    """Return the model with weights ``(1 - alpha) base + alpha tuned`` (section 3), the log logit scale included.

    Fine-tuning on one distribution can cost accuracy on others; models in between often lose little on the former and
    regain most of it on the latter. Computed in fp64; 0 and 1 give the weights of ``base`` and ``tuned`` bit for bit.
    Integer weights, such as BatchNorm's counts, are those of ``tuned``.

    Args:
        base: the model that fine-tuning started from.
        tuned: the fine-tuned model.
        alpha: the share of ``tuned``, from 0 to 1.

    Raises:
        ConfigError: ``alpha`` is out of range.
        BundleError: the two differ in more than their weights; the message names what differs.
    """
    if not 0.0 <= alpha <= 1.0:
        raise ConfigError(f"alpha = {alpha}: it must be from 0, the first model, to 1, the second")
    _check_fit(base, tuned)
    weights = {name: _between(base.weights[name], tensor, alpha) for name, tensor in tuned.weights.items()}
    between = Interpolation(base=base.digest(), tuned=tuned.digest(), alpha=alpha)
    lineage = Lineage(objective=tuned.lineage.objective, interpolated=between)
    return Bundle(tuned.config, weights, tuned.tokenizer, tuned.preprocess, lineage)


def _between(base: Tensor, tuned: Tensor, alpha: float) -> Tensor:
    if not tuned.is_floating_point() or alpha == 1.0:
        return tuned.clone()
    if alpha == 0.0:
        return base.clone()
    return torch.lerp(base.double(), tuned.double(), alpha).to(tuned.dtype)


def _check_fit(base: Bundle, tuned: Bundle) -> None:
    models = (_plain(base), _plain(tuned))
    differing = differences(*models, "model.")
    if base.tokenizer.to_json() != tuned.tokenizer.to_json():
        differing.append("the tokenizers are not the same")
    differing += differences(base.preprocess.model_dump(), tuned.preprocess.model_dump(), "preprocess.")
    if differing:
        raise BundleError(
            f"only models that differ in nothing but their weights can be interpolated: {'; '.join(differing)}"
        )


def _plain(bundle: Bundle) -> Mapping[str, object]:
    return bundle.config.model_dump(mode="json")
