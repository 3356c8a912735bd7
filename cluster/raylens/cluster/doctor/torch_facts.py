"""What torch reports about a machine, as a line of JSON.

It is a program of its own, so that no other process has to import torch. Its text is sent to the nodes, which may not
have raylens.
"""

import json
import sys

__all__ = ["facts"]


def facts() -> dict[str, object]:
    """Return versions, and the names of the GPUs that torch can use.

    Raises:
        ImportError: torch is not installed, or does not load.
    """
    import torch

    available = torch.cuda.is_available()
    nccl = ".".join(map(str, torch.cuda.nccl.version())) if available else None
    devices = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())] if available else []
    return {"torch": torch.__version__, "cuda": torch.version.cuda, "nccl": nccl, "gpus": devices}


if __name__ == "__main__":
    try:
        result = facts()
    except (ImportError, OSError, RuntimeError) as error:
        result = {"error": f"{type(error).__name__}: {error}"}
    sys.stdout.write(json.dumps(result) + "\n")
