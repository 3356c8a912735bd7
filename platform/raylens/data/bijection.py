"""Keyed bijections: a shuffled order that is computed where it is needed and never stored.

4-round Feistel networks with cycle walking (Black and Rogaway 2002, "Ciphers with Arbitrary Finite Domains"), keyed
through the finaliser of splitmix64 (Steele, Lea and Flood 2014).
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

__all__ = ["Ints", "Words", "key_of", "mix", "permute", "uniforms"]

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]
ROUNDS = 4


def key_of(text: str) -> int:
    """Return a 64-bit key for a text that names everything the key depends on."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def permute(values: Ints, size: int, keys: Words) -> Ints:
    """Apply a keyed bijection of ``0 .. size-1`` elementwise; ``values`` and ``keys`` are ``[n]``."""
    if size == 1:
        return np.zeros_like(values)
    half = max(1, -(-(size - 1).bit_length() // 2))
    result = _feistel(values.astype(np.uint64), half, keys)
    # Cycle walking: the network permutes a power of four at least as large as the domain; repeat until inside it.
    outside = result >= np.uint64(size)
    while outside.any():
        result[outside] = _feistel(result[outside], half, keys[outside])
        outside = result >= np.uint64(size)
    return result.astype(np.int64)


def uniforms(keys: Words, count: int) -> NDArray[np.float64]:
    """Draw ``count`` independent numbers from [0, 1) for each key: ``[n]`` to ``[n, count]``."""
    words = mix(keys[:, None] + np.arange(count, dtype=np.uint64) * np.uint64(0xD1B54A32D192ED03))
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def mix(words: Words) -> Words:
    """Apply the finaliser of splitmix64: every input bit affects every output bit."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Words = words ^ (words >> np.uint64(31))
    return mixed


def _feistel(values: Words, half: int, keys: Words) -> Words:
    mask, shift = np.uint64((1 << half) - 1), np.uint64(half)
    left, right = values >> shift, values & mask
    for step in range(ROUNDS):
        left, right = right, left ^ (mix(right ^ mix(keys + np.uint64(step + 16))) & mask)
    return (left << shift) | right
