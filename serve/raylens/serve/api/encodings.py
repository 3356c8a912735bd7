"""Embeddings as the API gives them: shortened, in smaller types, as numbers or base64.

Shapes: D embedding, K kept components.
"""

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raylens.serve.api.requests import EmbeddingType, EncodingFormat

__all__ = ["encoded", "shortened", "typed"]

Vector = NDArray[np.float32]


def shortened(vector_D: Vector, dimensions: int | None) -> Vector:
    """The first components of a vector, brought to unit norm again, ``[K]``."""
    if dimensions is None:
        return vector_D
    # In double precision: the squares of a few tiny components are zero in single, and their norm with them.
    kept_K = vector_D[:dimensions].astype(np.float64)
    norm = float(np.linalg.norm(kept_K))
    return (kept_K / norm if norm > 0 else kept_K).astype(np.float32)


def typed(vector_D: Vector, kind: EmbeddingType) -> NDArray[Any]:
    """A vector in one of the types.

    ``int8`` takes the vector's largest component for 127: compare by cosine, since the factor differs from vector to
    vector. ``binary`` is the signs, eight to a byte, the first component in the highest bit: compare by Hamming
    distance.
    """
    if kind == "int8":
        largest = float(np.abs(vector_D).max())
        small_D: NDArray[np.int8] = np.rint(vector_D * (127 / largest if largest > 0 else 0)).astype(np.int8)
        return small_D
    if kind == "binary":
        return np.packbits(vector_D > 0)
    return vector_D.astype("<f2" if kind == "float16" else "<f4")


def encoded(values: NDArray[Any], encoding: EncodingFormat) -> Any:
    """As a list of numbers, or as the base64 of its little-endian bytes."""
    if encoding == "base64":
        return base64.b64encode(values.tobytes()).decode("ascii")
    return values.tolist()
