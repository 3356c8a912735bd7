"""Names of tensors: raylens' own, and those that OpenAI and OpenCLIP share.

The two differ in ``resblocks``, in a prefix of the text tower, and in the shape of the scale.
"""

import re
from collections.abc import Mapping

from torch import Tensor

__all__ = ["from_openclip", "to_openclip"]

NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask")
"""Entries of OpenAI's archives that only describe."""
SCALARS = ("logit_scale", "logit_bias")
TEXT = ("token_embedding.", "positional_embedding", "transformer.", "ln_final.", "text_projection")


def from_openclip(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State of an OpenAI or OpenCLIP model to ours. Names that are not known stay as they are."""
    found = {}
    for name, tensor in tensors.items():
        if name in NOT_WEIGHTS or name == "text.attn_mask":
            continue
        new = f"text.{name}" if name.startswith(TEXT) else name
        new = re.sub(r"\.transformer\.resblocks\.", ".transformer.", new)
        found[new] = tensor.reshape(1) if name in SCALARS else tensor
    return found


def to_openclip(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state to OpenCLIP's."""
    found = {}
    for name, tensor in weights.items():
        new = re.sub(r"^(visual|text)\.transformer\.", r"\1.transformer.resblocks.", name).removeprefix("text.")
        found[new] = tensor.reshape(()) if name in SCALARS else tensor
    return found
