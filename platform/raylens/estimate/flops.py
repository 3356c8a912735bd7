"""How much of a GPU a run makes use of: an estimate from the towers' operations (Chowdhery et al. 2022, appendix B)."""

from raylens.config import RunConfig
from raylens.estimate.profile import Costs, costs

__all__ = ["Flops", "peak_of"]

PEAKS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "V100": 125e12,
}
"""Dense bf16 (V100: fp16) operations a second by the vendor's data sheets; the first name that a GPU's has counts."""


def peak_of(device_name: str) -> float | None:
    """Operations a second that a GPU of this name can do; None if it is not known."""
    return next((peak for name, peak in PEAKS.items() if name in device_name), None)


class Flops:
    """Operations that a run's model needs: forward once, backward twice as many. Those done over again do not count."""

    def __init__(self, config: RunConfig, device_name: str | None) -> None:
        """``device_name`` of the GPU; None on a CPU."""
        self._config = config
        self.peak = None if device_name is None else peak_of(device_name)
        self._costs: Costs | None = None

    def of_pair(self, tokens: float) -> float:
        """A training step's share; captions are as long as at the first call, on average."""
        towers = self._config.towers
        if self._costs is None:
            self._costs = costs(self._config.model, max(2, round(tokens)))
        image = self._costs.image_gflops * (1.0 - towers.patch_dropout) * (1 if towers.lock_image else 3)
        text = self._costs.text_gflops * (1 if towers.lock_text else 3)
        return 1e9 * (image + text)
