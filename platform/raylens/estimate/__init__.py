"""Estimates made before a run is started: operations, memory, network traffic and time of its steps."""

from typing import TYPE_CHECKING

from raylens.lazy import lazy_face

if TYPE_CHECKING:
    from raylens.estimate.counts import counts_of
    from raylens.estimate.flops import ModelFlops, model_costs
    from raylens.estimate.machine import Machine
    from raylens.estimate.memory import FP32
    from raylens.estimate.step import Estimate, estimate

__all__ = [
    "FP32",
    "Estimate",
    "Machine",
    "ModelFlops",
    "counts_of",
    "estimate",
    "model_costs",
]

__getattr__ = lazy_face(
    __name__,
    {
        "FP32": "memory",
        "Estimate": "step",
        "Machine": "machine",
        "ModelFlops": "flops",
        "counts_of": "counts",
        "estimate": "step",
        "model_costs": "flops",
    },
)
