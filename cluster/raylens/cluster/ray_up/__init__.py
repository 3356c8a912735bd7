"""The file for `ray up`, rendered from a cluster's description."""

from raylens.cluster.ray_up.render import render, to_yaml

__all__ = ["render", "to_yaml"]
