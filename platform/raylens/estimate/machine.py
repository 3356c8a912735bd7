"""The machine of an estimate: the vendor's numbers, and the share of them that a run reaches."""

from dataclasses import dataclass, fields

from raylens.errors import ConfigError

__all__ = ["Machine"]


@dataclass(frozen=True)
class Machine:
    """GPUs and the links between them; the defaults are the vendor's numbers for an H100 SXM in nodes of eight.

    Raises:
        ConfigError: a number is not above 0, or a share is above 1.
    """

    memory_bytes: float = 80 * 2**30
    """Memory of one GPU in bytes."""
    usable: float = 0.9
    """Share of the memory that tensors may take; the rest is for the context, NCCL and fragmentation."""
    flops: float = 989e12
    """Dense bf16 operations per second, the rate of amp_bf16, bf16 and fp16."""
    tf32_flops: float = 494.5e12
    fp32_flops: float = 67e12
    """Rate of fp32 towers, and of the loss with ``objective.products`` = fp32."""
    mfu: float = 0.4
    """Share of these rates that all operations of a step reach, including those that are recomputed."""
    node_size: int = 8
    """Number of GPUs that ``inside_bandwidth`` connects."""
    inside_bandwidth: float = 450e9
    """Bytes per second of one GPU in one direction within a node (NVLink)."""
    between_bandwidth: float = 50e9
    """Bytes per second of one GPU's own network adapter in one direction."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0 or (field.name in ("usable", "mfu") and value > 1):
                share = field.name in ("usable", "mfu")
                raise ConfigError(f"{field.name} = {value:g}: it must be above 0{' and at most 1' if share else ''}")

    def rate(self, precision: str) -> float:
        """Return the operations per second that matrix products of a precision reach."""
        peaks = {"fp32": self.fp32_flops, "tf32": self.tf32_flops}
        return self.mfu * peaks.get(precision, self.flops)

    def ring_bandwidth(self, workers: int) -> float:
        """Return the bytes per second that each GPU of a ring sends, limited by the slowest link.

        NCCL lays a ring through each adapter of a node, so that the data of one GPU crosses to the next node on all of
        them together.
        """
        if workers <= self.node_size:
            return self.inside_bandwidth
        return min(self.inside_bandwidth, self.node_size * self.between_bandwidth)
