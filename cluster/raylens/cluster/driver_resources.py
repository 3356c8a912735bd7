"""What the driver of a job reserves on the cluster."""

from typing import Annotated, Any

from pydantic import Field

from raylens.config import Node

__all__ = ["Resources"]

Amount = Annotated[float, Field(ge=0.0)]


class Resources(Node):
    """Of the driver alone: what a run's workers take, the run's own settings say. Without any, it is on the head."""

    cpus: Amount = 0.0
    gpus: Amount = 0.0
    memory: Annotated[int, Field(ge=0)] = 0
    """Bytes."""
    custom: dict[str, Amount] = {}  # noqa: RUF012 (pydantic copies it)
    """Resources that nodes were started with, by name."""

    def request(self) -> dict[str, Any]:
        """Fields of a request to the Jobs API; what is not reserved is left out."""
        fields = {
            "entrypoint_num_cpus": self.cpus,
            "entrypoint_num_gpus": self.gpus,
            "entrypoint_memory": self.memory,
            "entrypoint_resources": self.custom,
        }
        return {name: value for name, value in fields.items() if value}
