"""Replicas on one GPU: the embeddings that the CPU gives in fp32, alone and behind the API."""

import asyncio
import io

import numpy as np
import pytest
import torch
from PIL import Image

from raylens.config import ModelConfig, TextTransformerConfig, VisionTransformerConfig, validated
from raylens.inputs import Preprocess, Tokenizer
from raylens.inputs.preprocess import CLIP_MEAN, CLIP_STD
from raylens.models import DualEncoder
from raylens.ports import free_port
from raylens.registry import Bundle, Encoder, Registry
from raylens.serve import EmbeddingClient, serve_service
from raylens.serve.config import Precision, ServeSettings, ServiceConfig
from raylens.serve.messages import Embedded, Embeddings, ImageFile, Item, Text
from raylens.serve.replica.precision import MIN_COSINE
from raylens.serve.replica.replica import EncoderReplica

TEXTS = [f"a {colour} {thing}" for colour in ("red", "blue", "old") for thing in ("cat", "house", "tree", "dog" * 9)]
COSINE = {"fp32": 1 - 1e-5, "auto": MIN_COSINE}
"""Least of the GPU's embeddings to the CPU's in fp32."""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """A vision transformer of ViT-B/32's size with random weights, and a smaller text tower."""
    torch.manual_seed(0)
    tokenizer = Tokenizer.train(TEXTS * 8, 600)
    preprocess = Preprocess(size=224, mean=CLIP_MEAN, std=CLIP_STD)
    text = TextTransformerConfig(vocab=600, width=256, layers=6, heads=4)
    config = ModelConfig(embed_dim=256, image=VisionTransformerConfig(), text=text)
    model = DualEncoder(config, end_id=tokenizer.end_id, mean=preprocess.mean, std=preprocess.std)
    made = Registry(str(tmp_path_factory.mktemp("registry")))
    made.publish("vit", Bundle(config, model.state_dict(), tokenizer, preprocess))
    return made


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    draw, files = np.random.default_rng(1), []
    for _ in range(12):
        sink = io.BytesIO()
        coarse = Image.fromarray(draw.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        coarse.resize((320, 240), Image.Resampling.BICUBIC).save(sink, format="PNG")
        files.append(sink.getvalue())
    return files


@pytest.fixture(scope="module")
def expected(registry: Registry, pictures: list[bytes]) -> torch.Tensor:
    """Of the texts and the pictures, by the CPU."""
    encoder: Encoder = registry.load("vit@1")[1]
    return torch.cat([encoder.encode_texts(TEXTS), encoder.encode_images(pictures)])


@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_a_replica_on_the_gpu(
    registry: Registry, pictures: list[bytes], expected: torch.Tensor, precision: Precision
) -> None:
    replica = EncoderReplica(registry.store.uri, "vit@1", ServeSettings(), precision=precision, device="cuda")
    items: list[Item] = [*map(Text, TEXTS), *map(ImageFile, pictures)]

    async def ask() -> tuple[Embeddings, object]:
        answers = [await replica.embed(part) for part in (items[:1], items[1:3], items)]
        whole = answers[-1]
        assert isinstance(whole, Embeddings)
        return whole, await replica.probe()

    answer, refusal = asyncio.run(ask())
    assert refusal is None
    found = torch.stack([torch.from_numpy(one.vector_D) for one in answer.results if isinstance(one, Embedded)])
    assert (found * expected).sum(dim=1).min() >= COSINE[precision]


@pytest.mark.usefixtures("cluster")
def test_a_service_whose_towers_share_the_gpu(
    registry: Registry, pictures: list[bytes], expected: torch.Tensor
) -> None:
    tower = {"gpus": 0.5}
    tree = {
        "models": [{"model": "vit@1", "text": tower, "image": tower}],
        "registry": registry.store.uri,
        "port": free_port(),
    }
    with serve_service(validated(ServiceConfig, tree)) as service, EmbeddingClient(service.url) as client:
        found = np.concatenate([client.embed(TEXTS), client.embed(pictures)])
    assert (torch.from_numpy(found) * expected).sum(dim=1).min() >= MIN_COSINE
