"""Environment variables and imported modules of a service's processes."""

import socket
import subprocess
import sys

import pytest

from raylens.config import validated
from raylens.serve import ServiceConfig
from raylens.serve.deploy import environment as variables
from raylens.serve.deploy.environment import actor_options, environment, haproxy_ports

# What `raylens serve` has imported in its own process when the service is ready, and what a gateway imports.
DRIVER_AND_GATEWAY = (
    "raylens.workloads.cli",
    "raylens.workloads.lines",
    "raylens.workloads.service_config",
    "raylens.cluster.session",
    "raylens.serve.deploy.launch",
    "raylens.serve.gateway.ingress",
)
COMPUTE = ("torch", "deepspeed", "tokenizers", "scipy")


def config(proxy: str = "haproxy") -> ServiceConfig:
    return validated(ServiceConfig, {"models": [{"model": "tiny"}], "proxy": proxy})


def test_variables_that_ray_was_started_with_need_no_runtime_environment() -> None:
    wanted = environment()
    assert actor_options(config(), {}) == {"runtime_env": {"env_vars": wanted}}
    assert actor_options(config(), wanted | {"OTHER": "1"}) == {}


def test_only_the_variables_that_differ_are_given() -> None:
    """The service has no HAProxy, and Ray was started for one with it."""
    assert actor_options(config("ray"), environment()) == {
        "runtime_env": {"env_vars": {"RAY_SERVE_ENABLE_HA_PROXY": "0"}}
    }


def test_a_second_service_gets_other_ports_for_haproxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as first:
        first.bind(("", 0))
        port = int(first.getsockname()[1])
        monkeypatch.setattr(variables, "HAPROXY_PORTS", {"RAYLENS_TEST_PORT": port})
        assert haproxy_ports()["RAYLENS_TEST_PORT"] != str(port)
    assert haproxy_ports() == {"RAYLENS_TEST_PORT": str(port)}
    monkeypatch.setenv("RAYLENS_TEST_PORT", "7")
    assert haproxy_ports() == {"RAYLENS_TEST_PORT": "7"}


def test_who_only_deploys_or_passes_on_imports_nothing_that_computes() -> None:
    program = (
        f"import sys, {', '.join(DRIVER_AND_GATEWAY)}; print(*(name for name in {COMPUTE} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == []
