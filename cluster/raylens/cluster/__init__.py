"""Ray clusters: sessions, contexts, jobs, the description of a cluster and what is rendered from it, and preflight."""

from typing import TYPE_CHECKING

from raylens.cluster.session import session
from raylens.lazy import lazy_face

if TYPE_CHECKING:
    from raylens.cluster.contexts import ClusterContext, ClusterContexts, context_of, read_contexts, update_contexts
    from raylens.cluster.driver_resources import Resources
    from raylens.cluster.private_file import replace_private
    from raylens.cluster.secret_scan import check_text, check_variables
    from raylens.cluster.secrets import SecretReference, provide
    from raylens.cluster.session import store_bytes
    from raylens.cluster.text import last_line

__all__ = [
    "ClusterContext",
    "ClusterContexts",
    "Resources",
    "SecretReference",
    "check_text",
    "check_variables",
    "context_of",
    "last_line",
    "provide",
    "read_contexts",
    "replace_private",
    "session",
    "store_bytes",
    "update_contexts",
]

__getattr__ = lazy_face(
    __name__,
    {
        "ClusterContext": "contexts",
        "ClusterContexts": "contexts",
        "Resources": "driver_resources",
        "SecretReference": "secrets",
        "check_text": "secret_scan",
        "check_variables": "secret_scan",
        "context_of": "contexts",
        "last_line": "text",
        "provide": "secrets",
        "read_contexts": "contexts",
        "replace_private": "private_file",
        "store_bytes": "session",
        "update_contexts": "contexts",
    },
)
