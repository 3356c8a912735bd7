"""The resources that a job's driver reserves on the cluster."""

from typing import Annotated, Any

from pydantic import Field

from raylens.config import Node

__all__ = ["Resources"]

Amount = Annotated[float, Field(ge=0.0)]


class Resources(Node):
    """Resources of the driver alone; the run's own settings say what its workers take.

    A driver that reserves nothing runs on the head.
    """

    cpus: Amount = 0.0
    gpus: Amount = 0.0
    memory: Annotated[int, Field(ge=0)] = 0
    """Memory in bytes; 0 reserves none."""
    custom: dict[str, Amount] = {}  # noqa: RUF012 (pydantic copies it)
    """Amounts of custom resources, by the name that nodes were started with."""

    def request(self) -> dict[str, Any]:
        """Return the fields of a request to the Jobs API; amounts of 0 are left out."""
        fields = {
            "entrypoint_num_cpus": self.cpus,
            "entrypoint_num_gpus": self.gpus,
            "entrypoint_memory": self.memory,
            "entrypoint_resources": self.custom,
        }
        return {name: value for name, value in fields.items() if value}
