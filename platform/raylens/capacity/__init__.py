"""Whether a cluster has room for what is asked of it: nodes, bundles of resources, and what is missing."""

from raylens.capacity.autoscaler import lasting_shortage
from raylens.capacity.nodes import live_nodes, placement, possible_nodes
from raylens.capacity.own import declare_own_cluster, is_own_cluster
from raylens.capacity.packing import Ask, Node, Shortage, shortage

__all__ = [
    "Ask",
    "Node",
    "Shortage",
    "declare_own_cluster",
    "is_own_cluster",
    "lasting_shortage",
    "live_nodes",
    "placement",
    "possible_nodes",
    "shortage",
]
