"""Random choices that belong to a sample: they are the same whichever worker, micro-batch and pass computes it.

A generator's numbers depend on the order in which they are drawn, so another size of micro-batches would train
another model. Here each number is a hash of what it is used for. Shapes: B samples, N tokens of all samples, W width.
"""

import torch
from torch import Tensor

__all__ = ["any_keys", "dropped", "keys_of_tokens", "shuffled"]

HALF = 2**31
GOLDEN = 0x9E3779B1


def any_keys(samples: int, device: torch.device) -> Tensor:
    """Draw keys ``[B]`` from torch's generator, for callers that have none."""
    return torch.randint(-HALF, HALF, (samples,), device=device, dtype=torch.int64)


def keys_of_tokens(key_B: Tensor, row_N: Tensor, position_N: Tensor, tower: int) -> Tensor:
    """Return a key for each token, ``[N]`` in int32, from its sample's key, its position and its tower.

    Args:
        key_B: the key of each sample, int64.
        row_N: the sample that each token belongs to.
        position_N: the position of each token in its sample.
        tower: the number of the tower, because both towers get the same keys.
    """
    low_B, high_B = key_B.to(torch.int32), (key_B >> 32).to(torch.int32)
    sample_B = _mixed(_mixed(low_B ^ tower) ^ high_B)
    return _mixed(sample_B[row_N] ^ _mixed(position_N.to(torch.int32)))


def dropped(x_NW: Tensor, key_N: Tensor, share: float, layer: int) -> Tensor:
    """Return ``x`` with a share of its values set to zero and the others scaled up (Srivastava et al. 2014).

    Args:
        x_NW: a row for each token.
        key_N: the key of each token, as `keys_of_tokens` returns it.
        share: the share of values that are dropped, below 1.
        layer: a number that differs between the calls that a token passes through.
    """
    channel_W = _mixed(torch.arange(x_NW.shape[1], device=x_NW.device, dtype=torch.int32))
    hash_NW = _mixed(_mixed(key_N ^ _signed((layer + 1) * GOLDEN))[:, None] ^ channel_W)
    kept_NW = hash_NW >= int(share * 2 * HALF) - HALF
    return x_NW * kept_NW / (1.0 - share)


def shuffled(key_B: Tensor, positions: int) -> Tensor:
    """Return a random order of positions for each sample, ``[B, positions]``."""
    row = torch.arange(len(key_B), device=key_B.device).repeat_interleave(positions)
    position = torch.arange(positions, device=key_B.device).repeat(len(key_B))
    return keys_of_tokens(key_B, row, position, tower=-1).view(-1, positions).argsort(dim=1, stable=True)


def _mixed(x: Tensor) -> Tensor:
    """Apply a bijection of 32-bit integers that spreads every bit over all (lowbias32, Wellons 2018)."""
    x = x ^ ((x >> 16) & 0xFFFF)
    x = x * _signed(0x7FEB352D)
    x = x ^ ((x >> 15) & 0x1FFFF)
    x = x * _signed(0x846CA68B)
    return x ^ ((x >> 16) & 0xFFFF)


def _signed(value: int) -> int:
    """Return the signed integer with the same lowest 32 bits."""
    return (value + HALF) % (2 * HALF) - HALF
