"""Deploying a service on Ray Serve: checks, start, autoscaling and stop."""

from typing import TYPE_CHECKING

from raylens.lazy import lazy_face

if TYPE_CHECKING:
    from raylens.serve.deploy.environment import haproxy_ports
    from raylens.serve.deploy.serve_config import serve_config_yaml

__all__ = [
    "haproxy_ports",
    "serve_config_yaml",
]

__getattr__ = lazy_face(
    __name__,
    {
        "haproxy_ports": "environment",
        "serve_config_yaml": "serve_config",
    },
)
