"""The check whether a cluster has room for requested resources: nodes, bundles of resources, and shortages."""

from raylens.capacity.autoscaler import lasting_shortage
from raylens.capacity.nodes import declare_own_cluster, is_own_cluster, live_nodes, placement, possible_nodes
from raylens.capacity.packing import Node, ResourceRequest, Shortage, shortage

__all__ = [
    "Node",
    "ResourceRequest",
    "Shortage",
    "declare_own_cluster",
    "is_own_cluster",
    "lasting_shortage",
    "live_nodes",
    "placement",
    "possible_nodes",
    "shortage",
]
