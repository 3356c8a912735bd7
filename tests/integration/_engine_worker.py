"""What a rank does for test_engine.py: steps of the real engine, from a saved state or the beginning."""

from typing import TYPE_CHECKING, Any

import torch
from deepspeed.accelerator import get_accelerator
from deepspeed.runtime import precision_config
from deepspeed.runtime.config import _REMOVED_ZERO_CONFIG_KEYS, DeepSpeedConfig
from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
from deepspeed.runtime.zero.offload_config import DeepSpeedZeroOffloadOptimizerConfig

from raylens.models import DualEncoder
from raylens.train.checkpoint.snapshot import Snapshot
from raylens.train.engine.forward import build_forward
from raylens.train.engine.zero import ZeroEngine
from raylens.train.loop.schedule import TrainingProgress
from tests.helpers.ranks import share

if TYPE_CHECKING:
    from raylens.config import RunConfig


def take_steps(case: dict[str, Any], rank: int, size: int) -> dict[str, Any]:
    """The statistics of the steps, the states on the way and after them, and this rank's images by averaged weights."""
    # Torch computes in fp16 on any processor, slowly; DeepSpeed asks whether it does so fast.
    get_accelerator().is_fp16_supported = lambda: True
    config: RunConfig = case["config"]
    model = DualEncoder(config.model, end_id=1, mean=(0.5,) * 3, std=(0.5,) * 3)
    model.load_state_dict(case["weights"])
    micro_batch = config.worker_batch // case["micro_batches"]
    engine = ZeroEngine(config, build_forward(model, config), micro_batch, torch.device("cpu"))
    if case["from"] is not None:
        saved: list[Snapshot] = case["from"]
        pieces = {key: tensor for state in saved for key, tensor in state.tensors.items()}
        local = saved[rank if len(saved) == size else 0].local
        engine.state.restore(Snapshot(pieces, local, saved[0].scaler, saved[0].applied))
    stats, half = [], None
    for step, batch in enumerate(case["batches"], case["first"]):
        if step == case["kept_at"]:
            half = engine.state.snapshot()
        stats.append(engine.train_step(share(batch, rank, size), TrainingProgress(step, case["steps"])))
    with engine.averaged(TrainingProgress(0, 1)) as forward, torch.no_grad():
        mine = share(case["batches"][0], rank, size)
        image_BD = forward(torch.from_numpy(mine.image_BSSC), torch.from_numpy(mine.ids_BT), None).image_BD
    return {"stats": stats, "half": half, "state": engine.state.snapshot(), "image_BD": image_BD}


class RecordedKeys(dict[str, Any]):
    """A configuration that remembers which keys were looked for."""

    def __init__(self, **given: Any) -> None:
        super().__init__(given)
        self.asked: set[str] = set()

    def __copy__(self) -> "RecordedKeys":
        return self

    def keys(self) -> "RecordedKeys":  # type: ignore[override]
        return self

    def __contains__(self, key: object) -> bool:
        self.asked.add(str(key))
        return super().__contains__(key)

    def __getitem__(self, key: str) -> Any:
        self.asked.add(key)
        return super().__getitem__(key)

    def get(self, key: str, otherwise: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, otherwise)


def deepspeed_keys(case: None, rank: int, size: int) -> dict[str, list[str]]:
    """Every key that DeepSpeed's configuration looks for, by section."""
    given = RecordedKeys(train_batch_size=1)
    DeepSpeedConfig(given)
    results = {"": sorted(given.asked)}
    for section, model in {
        "zero_optimization": DeepSpeedZeroConfig,
        "zero_optimization.offload_optimizer": DeepSpeedZeroOffloadOptimizerConfig,
        "fp16": precision_config.DeepSpeedFP16Config,
        "bf16": precision_config.DeepSpeedBF16Config,
    }.items():
        names = {name for key, field in model.model_fields.items() for name in (key, field.alias) if name}
        results[section] = sorted(names | (set(_REMOVED_ZERO_CONFIG_KEYS) if section == "zero_optimization" else set()))
    return results
