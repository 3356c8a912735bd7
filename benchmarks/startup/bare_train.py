"""The floor of phases.py: a bare Ray Train script, two workers that import torch and DeepSpeed and step once.

``bare_train.py FOLDER`` writes the moments of its phases, in seconds of the system's clock, to FOLDER/moments.json.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def train(config: dict[str, Any]) -> None:
    os.environ["DS_ACCELERATOR"] = "cpu"
    # Where the optional mlflow is installed, DeepSpeed imports it, which is no part of the floor.
    sys.modules["mlflow"] = None  # type: ignore[assignment]
    begun = time.time()
    import deepspeed
    import deepspeed.ops
    import torch

    del sys.modules["mlflow"]
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    imported = time.time()
    model = torch.nn.Linear(64, 64)
    engine = deepspeed.initialize(
        model=model,
        optimizer=torch.optim.AdamW(model.parameters()),
        config={"train_batch_size": 2, "gradient_clipping": 1.0, "zero_optimization": {"stage": 1},
                "zero_allow_untested_optimizer": True, "zero_force_ds_cpu_optimizer": False},
    )[0]  # fmt: skip
    loss = engine(torch.randn(1, 64)).square().mean()
    engine.backward(loss)
    engine.step()
    stepped = time.time()
    if torch.distributed.get_rank() == 0:
        moments = {"workers": begun, "worker imports": imported, "first step": stepped}
        Path(config["out"]).write_text(json.dumps(config["moments"] | moments))


def main() -> None:
    folder = Path(sys.argv[1]).absolute()
    import ray
    import ray.train
    import ray.train.torch

    moments = {"imports": time.time()}
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    moments["Ray"] = time.time()
    ray.train.torch.TorchTrainer(
        train,
        train_loop_config={"moments": moments, "out": str(folder / "moments.json")},
        scaling_config=ray.train.ScalingConfig(num_workers=2),
        run_config=ray.train.RunConfig(name="bare", storage_path=str(folder)),
    ).fit()


if __name__ == "__main__":
    main()
