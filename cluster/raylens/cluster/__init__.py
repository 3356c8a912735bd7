"""Ray clusters: sessions, contexts, jobs, the description of a cluster and what is rendered from it, and preflight."""

from raylens.cluster.session import session

__all__ = ["session"]
