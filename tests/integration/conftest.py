"""Fixtures of the integration tests: a Ray cluster, an S3 server on loopback, and buckets in it."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from raylens.ports import free_port
from raylens.serve.deploy.environment import HAPROXY_PORTS
from tests.helpers.ranks import RankPool
from tests.shared_ray import S3_ENVIRONMENT, SHARED, SharedRay


@pytest.fixture(scope="session", autouse=True)
def haproxy_ports() -> None:
    """Services that other processes of tests start at the same time have other ports."""
    for name in HAPROXY_PORTS:
        os.environ[name] = str(free_port())


SERVER = """
import sys, threading
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

application, turn = DomainDispatcherApplication(create_backend_app), threading.Lock()

def one_at_a_time(environ, start_response):
    with turn:
        return application(environ, start_response)

server = make_server("127.0.0.1", 0, one_at_a_time, threaded=True, request_handler=MotoRequestHandler)
threading.Thread(target=server.serve_forever).start()
print("http://127.0.0.1:%d" % server.server_port, flush=True)
sys.stdin.read()
server.shutdown()
"""
"""Ends with its standard input, so that it never outlives the tests.

One request at a time: moto checks a condition and then writes, and lets two racing writers win now and then.
"""


@pytest.fixture(scope="session")
def shared_ray() -> Iterator[SharedRay]:
    """The cluster that modules share; ``end()`` stops it for those that need one of their own, or none."""
    yield SHARED
    SHARED.end()


@pytest.fixture(scope="module")
def cluster(shared_ray: SharedRay) -> Iterator[None]:
    """Ray, as the commands start it, shared with the other modules: what a module starts on it, it ends."""
    with shared_ray.lent():
        yield


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The endpoint of an S3 server that lives as long as the session."""
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        endpoint = process.stdout.readline().strip()
        assert endpoint, "the S3 server did not start"
        yield endpoint
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=30)


@pytest.fixture
def s3_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Credentials, and nothing else that this machine may say about S3."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    for name, value in S3_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def s3_bucket(s3_server: str, s3_environment: None) -> str:
    """The URI of a fresh, empty bucket."""
    return new_bucket(s3_server)


def new_bucket(endpoint: str) -> str:
    """The URI of a fresh, empty bucket; with the credentials that are in the environment."""
    import boto3

    bucket = f"raylens-{uuid.uuid4().hex[:12]}"
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket=bucket)
    return f"s3://{bucket}?endpoint_override={endpoint}&region=us-east-1"


@pytest.fixture(scope="session")
def ranks() -> Iterator[RankPool]:
    """Process groups without Ray, forked when they are asked for.

    Under pytest-xdist, modules that use it should be in one group: each pytest process has a host of its own.
    """
    with RankPool() as pool:
        yield pool
