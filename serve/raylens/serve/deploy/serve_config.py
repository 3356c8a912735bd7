"""Ray Serve's declarative config of a service: the file for its own tools, and the builder that the file names."""

from typing import Any

import yaml
from ray import serve

from raylens.capacity import placement
from raylens.config import validated
from raylens.registry import Registry
from raylens.serve.config import ServiceConfig
from raylens.serve.deploy.deployments import build_application
from raylens.serve.deploy.environment import environment

__all__ = ["build", "serve_config_yaml"]


def build(arguments: dict[str, Any]) -> serve.Application:
    """Return the application of a service's settings; Ray Serve calls this on the cluster with the file's ``args``.

    Raises:
        ConfigError: the arguments are no settings of a service.
        NotFoundError: the registry has no such model.
    """
    config = validated(ServiceConfig, arguments)
    models = Registry(config.registry)
    versions = [models.resolve(model.model) for model in config.models]
    return build_application(config, models.store.uri, versions, placement().selector("serve"))


def serve_config_yaml(config: ServiceConfig) -> str:
    """Return the YAML file for ``serve deploy``, or for a RayService of KubeRay under ``serveConfigV2``.

    Paths are made absolute, because processes with another working folder read them.
    """
    config = config.with_absolute_paths()
    tree = {
        "proxy_location": "EveryNode",
        "http_options": {
            "host": config.host,
            "port": config.port,
            "request_timeout_s": config.limits.request_timeout_s + 5,
        },
        "controller_options": {"runtime_env": {"env_vars": environment(config.proxy)}},
        "applications": [
            {
                "name": "raylens",
                "import_path": "raylens.serve.deploy.serve_config:build",
                "route_prefix": "/",
                "runtime_env": {"env_vars": environment(config.proxy)},
                "args": config.model_dump(mode="json"),
            }
        ],
    }
    head = (
        "# For `serve deploy`, or under serveConfigV2 of a RayService; every node has raylens. Ray is started\n"
        "# with RAY_SERVE_ENABLE_HA_PROXY=1 in its environment: without it, its Python proxy is what limits the rate.\n"
    )
    return head + yaml.safe_dump(tree, sort_keys=False, width=100)
