"""The check whether a cluster has room for requested resources: nodes, bundles of resources, and shortages."""

from typing import TYPE_CHECKING

from raylens.capacity.autoscaler import lasting_shortage
from raylens.capacity.nodes import declare_own_cluster, is_own_cluster, live_nodes, placement, possible_nodes
from raylens.capacity.packing import Node, ResourceRequest, Shortage, shortage
from raylens.lazy import lazy_face

if TYPE_CHECKING:
    from raylens.capacity.autoscaler import autoscaler_status, launches
    from raylens.capacity.nodes import name_of, started_by_this_process

__all__ = [
    "Node",
    "ResourceRequest",
    "Shortage",
    "autoscaler_status",
    "declare_own_cluster",
    "is_own_cluster",
    "lasting_shortage",
    "launches",
    "live_nodes",
    "name_of",
    "placement",
    "possible_nodes",
    "shortage",
    "started_by_this_process",
]

__getattr__ = lazy_face(
    __name__,
    {
        "autoscaler_status": "autoscaler",
        "launches": "autoscaler",
        "name_of": "nodes",
        "started_by_this_process": "nodes",
    },
)
