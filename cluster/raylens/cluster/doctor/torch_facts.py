"""What torch sees on a machine, a line of JSON: run as a program of its own, so that nothing else is burdened with it.

Its text is sent to the nodes, which need not have raylens.
"""

import json
import sys

__all__ = ["facts"]


def facts() -> dict[str, object]:
    """Versions, and the GPUs that torch can use.

    Raises:
        ImportError: there is no torch, or it does not load.
    """
    import torch

    available = torch.cuda.is_available()
    nccl = ".".join(map(str, torch.cuda.nccl.version())) if available else None
    devices = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())] if available else []
    return {"torch": torch.__version__, "cuda": torch.version.cuda, "nccl": nccl, "gpus": devices}


if __name__ == "__main__":
    try:
        found = facts()
    except (ImportError, OSError, RuntimeError) as error:
        found = {"error": f"{type(error).__name__}: {error}"}
    sys.stdout.write(json.dumps(found) + "\n")
