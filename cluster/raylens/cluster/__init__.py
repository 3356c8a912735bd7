"""Clusters: joining one, or having one on this machine."""

from raylens.cluster.session import session

__all__ = ["session"]
