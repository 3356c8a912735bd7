"""A registry with a tiny model, its encoder, and a replica of it: new ones for each module of tests."""

from pathlib import Path

import pytest

from raylens.registry import Encoder, Registry
from raylens.serve.replica.replica import EncoderReplica
from tests.helpers.serving_app import SETTINGS, random_bundle


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("registry")
    Registry(str(folder)).publish("tiny", random_bundle())
    return folder


@pytest.fixture(scope="module")
def encoder(registry: Path) -> Encoder:
    return Registry(str(registry)).load("tiny")[1]


@pytest.fixture(scope="module")
def replica(registry: Path) -> EncoderReplica:
    return EncoderReplica(str(registry), "tiny@1", SETTINGS)
