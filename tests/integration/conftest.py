"""Fixtures of the integration tests: a Ray cluster, an S3 server on loopback, and buckets in it."""

import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest

from raylens.cluster import session

SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print("http://%s:%d" % server.get_host_and_port(), flush=True)
sys.stdin.read()
server.stop()
"""
"""Ends with its standard input, so that it never outlives the tests."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Ray, as the commands start it, for one module of tests."""
    with session(num_cpus=5):
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
def s3_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials, and nothing else that this machine may say about S3."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "raylens-tests")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "no-secret-at-all")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def s3_bucket(s3_server: str, s3_environment: None) -> str:
    """The URI of a fresh, empty bucket."""
    import boto3

    bucket = f"raylens-{uuid.uuid4().hex[:12]}"
    boto3.client("s3", endpoint_url=s3_server, region_name="us-east-1").create_bucket(Bucket=bucket)
    return f"s3://{bucket}?endpoint_override={s3_server}&region=us-east-1"
