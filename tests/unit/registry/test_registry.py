"""Bundles and the registry: what is published is what is loaded, or an error that names the file."""

import hashlib
import io
import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from raylens.config import ModelConfig, TextTransformerConfig, VisionTransformerConfig
from raylens.errors import BundleError, ConfigError, ConflictError, InputError, NotFoundError
from raylens.inputs import Preprocess, Tokenizer
from raylens.models import DualEncoder
from raylens.registry import Bundle, Encoder, Lineage, Registry, Version
from raylens.storage import Store, open_store

CONFIG = ModelConfig(
    embed_dim=8,
    image=VisionTransformerConfig(size=8, patch=4, width=16, layers=2, heads=2),
    text=TextTransformerConfig(context=12, vocab=600, width=16, layers=2, heads=2),
)
TOKENIZER = Tokenizer.train(["a photo of a cat", "a photo of a dog"] * 2, 540)
FILES = ["weights.safetensors", "config.json", "tokenizer.json", "preprocess.json"]


def bundle(seed: int = 0, **lineage: Any) -> Bundle:
    torch.manual_seed(seed)
    preprocess = Preprocess(size=8, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    model = DualEncoder(CONFIG, end_id=TOKENIZER.end_id, mean=preprocess.mean, std=preprocess.std)
    return Bundle(CONFIG, model.state_dict(), TOKENIZER, preprocess, Lineage(**lineage))


ENCODER = Encoder(bundle())


def saved(path: Path, seed: int = 0) -> tuple[Store, str]:
    store = open_store(path)
    return store, bundle(seed).save(store)


def rewrite(store: Store, name: str, data: bytes) -> None:
    """Put another file into a bundle, and its hash into ``bundle.json``."""
    manifest = json.loads(store.read("bundle.json"))
    manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    store.write(name, data)
    store.write("bundle.json", json.dumps(manifest).encode())


def together(work: Sequence[Callable[[], Any]]) -> list[Any]:
    """The results of several calls that start at the same moment."""
    barrier = threading.Barrier(len(work))

    def run(call: Callable[[], Any]) -> Any:
        barrier.wait()
        return call()

    with ThreadPoolExecutor(len(work)) as pool:
        return list(pool.map(run, work))


def test_a_bundle_comes_back_as_it_was(tmp_path: Path) -> None:
    original = bundle(3, run="r", step=7)
    store = open_store(tmp_path)
    digest = original.save(store)
    again = Bundle.load(store, digest)
    assert digest == original.digest() == again.digest()
    assert again.config == original.config
    assert again.preprocess == original.preprocess
    assert again.tokenizer.to_json() == original.tokenizer.to_json()
    assert again.lineage == original.lineage == Lineage(run="r", step=7)
    assert set(again.weights) == set(original.weights)
    for name, weight in original.weights.items():
        assert again.weights[name].dtype == weight.dtype
        assert again.weights[name].numpy().tobytes() == weight.numpy().tobytes()


def test_weights_are_kept_to_the_bit(tmp_path: Path) -> None:
    weights = {name: weight.clone() for name, weight in bundle().weights.items()}
    odd = torch.tensor([-0.0, 1e-45, -1e-39, 3.4e38, float("inf"), float("nan")])
    weights["visual.class_embedding"][:6] = odd
    weights["visual.proj"] = weights["visual.proj"].T.contiguous().T  # not in memory order
    original = Bundle(CONFIG, weights, TOKENIZER, Preprocess(size=8))
    original.save(open_store(tmp_path))
    for name, weight in Bundle.load(open_store(tmp_path)).weights.items():
        assert weight.numpy().tobytes() == weights[name].contiguous().numpy().tobytes()


def test_a_loaded_encoder_embeds_alike(tmp_path: Path) -> None:
    store, _ = saved(tmp_path)
    again = Encoder(Bundle.load(store))
    assert torch.equal(again.encode_texts(["a cat"]), ENCODER.encode_texts(["a cat"]))
    assert torch.equal(again.encode_images([picture(0)]), ENCODER.encode_images([picture(0)]))
    assert again.logit_scale == pytest.approx(1 / 0.07, rel=1e-6)
    assert (again.embed_dim, again.context) == (8, 12)


def test_the_digest_is_of_what_embeds() -> None:
    base = bundle()
    assert bundle(run="elsewhere").digest() == base.digest()
    others = [
        bundle(1),
        Bundle(CONFIG.model_copy(update={"activation": "gelu"}), base.weights, TOKENIZER, base.preprocess),
        Bundle(CONFIG, base.weights, Tokenizer.train(["a house"] * 3, 530), base.preprocess),
        Bundle(CONFIG, base.weights, TOKENIZER, Preprocess(size=8)),
    ]
    assert len({base.digest(), *(other.digest() for other in others)}) == 5


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_is_found_and_its_file_named(name: str, place: float, tmp_path: Path) -> None:
    store, _ = saved(tmp_path)
    data = bytearray(store.read(name))
    data[round(place * (len(data) - 1))] ^= 1
    store.write(name, bytes(data))
    with pytest.raises(BundleError, match=rf"{name} has sha256 \w+, bundle\.json says \w+: the file was changed"):
        Bundle.load(store)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    store, _ = saved(tmp_path)
    store.delete(name)
    with pytest.raises(BundleError, match=f"{name} is missing"):
        Bundle.load(store)


@pytest.mark.parametrize("name", FILES)
def test_what_cannot_be_read_is_named_even_if_its_hash_fits(name: str, tmp_path: Path) -> None:
    for number, data in enumerate((b"", b"\xff\xfe", b"null", b'{"a": 1}')):
        store, _ = saved(tmp_path / str(number))
        rewrite(store, name, data)
        with pytest.raises(BundleError, match=rf"{name} cannot be read") as caught:
            Bundle.load(store)
        assert store.describe() in str(caught.value)


def edited(change: Callable[[dict[str, Any]], Any]) -> Callable[[bytes], bytes]:
    def edit(data: bytes) -> bytes:
        manifest = json.loads(data)
        change(manifest)
        return json.dumps(manifest).encode()

    return edit


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda data: data[: len(data) // 2], "is damaged: Invalid JSON"),
        (lambda data: b"\xff" + data, "is damaged: "),
        (lambda _: b"[]", "is damaged: "),
        (edited(lambda manifest: manifest.pop("files")), "is damaged: files is missing"),
        (edited(lambda manifest: manifest.update(files=[])), "is damaged: files = "),
        (edited(lambda manifest: manifest["files"]["config.json"].pop("sha256")), "config.json.sha256 is missing"),
        (edited(lambda manifest: manifest["files"].pop("config.json")), "does not list config.json"),
        (edited(lambda manifest: manifest.update(format=2)), "has format 2, expected 1: update raylens"),
    ],
)
def test_a_damaged_manifest_is_a_bundle_error(edit: Callable[[bytes], bytes], words: str, tmp_path: Path) -> None:
    store, _ = saved(tmp_path)
    store.write("bundle.json", edit(store.read("bundle.json")))
    with pytest.raises(BundleError) as caught:
        Bundle.load(store)
    assert words in str(caught.value)
    assert "bundle.json" in str(caught.value)


def test_a_replaced_bundle_is_found_by_its_digest(tmp_path: Path) -> None:
    """Whole in itself, but not what the version says."""
    store, _ = saved(tmp_path, seed=1)
    with pytest.raises(BundleError, match=r"has digest \w+, expected \w+: bundle\.json was changed"):
        Bundle.load(store, bundle(0).digest())


def test_a_half_written_bundle_does_not_exist(tmp_path: Path) -> None:
    registry = Registry(str(tmp_path))
    target = registry.bundle_store(Version("m", 1, bundle().digest(), "", Lineage()))
    for name, data in list(bundle().files().items())[:2]:  # a publisher that was killed here
        target.write(name, data)
    with pytest.raises(BundleError, match=r"bundle\.json is missing \(it is written last"):
        Bundle.load(target)
    assert registry.names() == []
    assert str(registry.publish("m", bundle())) == "m@1"
    registry.load("m")


def other_weights(change: Callable[[dict[str, Any]], Any]) -> Bundle:
    weights = dict(bundle().weights)
    change(weights)
    return Bundle(CONFIG, weights, TOKENIZER, Preprocess(size=8))


def smaller(vocab: int) -> ModelConfig:
    return CONFIG.model_copy(update={"text": CONFIG.text.model_copy(update={"vocab": vocab})})


@pytest.mark.parametrize(
    ("unfit", "words"),
    [
        (other_weights(lambda w: w.pop("visual.proj")), "visual.proj is missing"),
        (other_weights(lambda w: w.update(spare=torch.zeros(1))), "spare is not known"),
        (
            other_weights(lambda w: w.update({"visual.proj": torch.zeros(8, 16)})),
            r"visual.proj has shape \(8, 16\), expected \(16, 8\)",
        ),
        (other_weights(dict.clear), "and [0-9]+ more"),
        (
            Bundle(CONFIG, bundle().weights, TOKENIZER, Preprocess(size=16)),
            r"preprocess\.json has size 16, config\.json has image\.size 8",
        ),
        (
            Bundle(smaller(TOKENIZER.vocab_size - 1), bundle().weights, TOKENIZER, Preprocess(size=8)),
            rf"tokenizer\.json has {TOKENIZER.vocab_size} tokens, .* text\.vocab {TOKENIZER.vocab_size - 1}",
        ),
    ],
    ids=["missing", "unknown", "shape", "none", "size", "vocabulary"],
)
def test_parts_that_do_not_fit_each_other_are_refused(unfit: Bundle, words: str, tmp_path: Path) -> None:
    unfit.save(open_store(tmp_path))
    with pytest.raises(BundleError, match=words):
        Encoder(Bundle.load(open_store(tmp_path)))


def test_versions_count_up_and_publishing_is_idempotent(tmp_path: Path) -> None:
    registry = Registry(str(tmp_path))
    published = [registry.publish("m", bundle(seed, step=seed)) for seed in (0, 1, 0, 2)]
    assert [str(version) for version in published] == ["m@1", "m@2", "m@1", "m@3"]
    assert registry.versions("m") == [published[0], published[1], published[3]]
    assert published[1].lineage == Lineage(step=1)
    assert registry.publish("other", bundle(0)).number == 1
    assert registry.names() == ["m", "other"]


def test_concurrent_publishers_get_numbers_of_their_own(tmp_path: Path) -> None:
    bundles = [bundle(seed) for seed in range(6)]
    found = together([partial(Registry(str(tmp_path)).publish, "m", one) for one in bundles])
    assert sorted(version.number for version in found) == [1, 2, 3, 4, 5, 6]
    registry = Registry(str(tmp_path))
    for version, original in zip(found, bundles, strict=True):
        assert registry.resolve(str(version)).digest == original.digest()
        registry.load(str(version))


@pytest.mark.parametrize("attempt", range(3))
def test_concurrent_publishers_of_one_bundle_get_one_version(attempt: int, tmp_path: Path) -> None:
    bundles = [bundle(attempt), bundle(attempt + 10)] * 4
    found = together([partial(Registry(str(tmp_path)).publish, "m", one) for one in bundles])
    assert {version.number for version in found} == {1, 2}
    assert len(Registry(str(tmp_path)).versions("m")) == 2
    assert all(version.digest == one.digest() for version, one in zip(found, bundles, strict=True))


def test_aliases_move(tmp_path: Path) -> None:
    registry = Registry(str(tmp_path))
    for seed in range(3):
        registry.publish("m", bundle(seed))
    assert registry.aliases("m") == {}
    assert str(registry.promote("m", "prod", 1)) == "m@1"
    registry.promote("m", "canary", 3)
    registry.promote("m", "prod", 2)
    registry.promote("m", "prod", 2)
    assert registry.aliases("m") == {"canary": 3, "prod": 2}
    assert registry.resolve("m@prod").number == 2
    assert registry.resolve("m@latest") == registry.resolve("m") == registry.resolve("m@") == registry.resolve("m@3")


def test_of_racing_promotions_the_last_that_succeeded_stands(tmp_path: Path) -> None:
    registry = Registry(str(tmp_path))
    numbers = [registry.publish("m", bundle(seed)).number for seed in range(4)]

    def promote(number: int) -> int | None:
        try:
            return Registry(str(tmp_path)).promote("m", "prod", number).number
        except ConflictError:
            return None

    for _ in range(5):
        won = [number for number in together([partial(promote, n) for n in numbers]) if number is not None]
        assert registry.resolve("m@prod").number in won


@pytest.mark.parametrize("alias", ["latest", "3", "٣", "", "a/b", "..", "-x", "a" * 101])
def test_an_alias_is_a_word(alias: str, tmp_path: Path) -> None:
    registry = Registry(str(tmp_path))
    registry.publish("m", bundle())
    with pytest.raises(ConfigError, match="alias = "):
        registry.promote("m", alias, 1)
    assert registry.aliases("m") == {}


@pytest.mark.parametrize("name", ["", "a/b", "../m", ".m", "m\n", "a b"])
def test_a_model_has_a_plain_name(name: str, tmp_path: Path) -> None:
    registry = Registry(str(tmp_path))
    for call in (
        lambda: registry.publish(name, bundle()),
        lambda: registry.resolve(name),
        lambda: registry.aliases(name),
    ):
        with pytest.raises(ConfigError, match="model name = "):
            call()


def test_what_is_not_there_is_named_with_what_is(tmp_path: Path) -> None:
    registry = Registry(str(tmp_path))
    with pytest.raises(NotFoundError, match=r"no model 'm' in the registry .*; models there: none yet"):
        registry.resolve("m")
    registry.publish("m", bundle(0))
    registry.publish("m", bundle(1))
    registry.promote("m", "prod", 1)
    with pytest.raises(NotFoundError, match=r"no model 'n' in the registry .*; models there: m"):
        registry.resolve("n@prod")
    for which in ("3", "0", "-1", "beta", "1@2"):
        with pytest.raises(NotFoundError) as caught:
            registry.resolve(f"m@{which}")
        words = f"model 'm' has no version or alias {which!r}; versions: 1 to 2, aliases: latest, prod"
        assert words in str(caught.value)
    with pytest.raises(NotFoundError, match="no version or alias '9'"):
        registry.promote("m", "prod", 9)
    assert registry.resolve("m@prod").number == 1


def test_a_tampered_model_is_not_loaded(tmp_path: Path) -> None:
    """Even where the thief wrote fitting hashes: the version knows the digest."""
    registry = Registry(str(tmp_path))
    version = registry.publish("m", bundle(0))
    stolen = bundle(1).files()["weights.safetensors"]
    rewrite(registry.bundle_store(version), "weights.safetensors", stolen)
    with pytest.raises(BundleError, match=r"bundle\.json was changed"):
        registry.load("m")


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff"])
def test_damaged_records_are_named(data: bytes, tmp_path: Path) -> None:
    registry = Registry(str(tmp_path))
    registry.publish("m", bundle())
    registry.promote("m", "prod", 1)
    registry.store.write("m/aliases/prod.json", data)
    with pytest.raises(BundleError, match=r"aliases/prod\.json .* is not what raylens writes there"):
        registry.aliases("m")
    assert registry.resolve("m").number == 1
    registry.store.write("m/versions/000001.json", data)
    with pytest.raises(BundleError, match=r"versions/000001\.json .* is not what raylens writes there"):
        registry.resolve("m")


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (10, 11, 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()


CAPTIONS = st.lists(st.text(max_size=20), min_size=1, max_size=7)


@settings(max_examples=30)
@given(CAPTIONS, st.integers(1, 8))
def test_a_texts_embedding_does_not_depend_on_its_batch(texts: list[str], batch: int) -> None:
    found = ENCODER.encode_texts(texts, batch=batch)
    assert found.shape == (len(texts), 8)
    for row, text in zip(found, texts, strict=True):
        torch.testing.assert_close(ENCODER.encode_texts([text])[0], row, rtol=0, atol=5e-6)


@settings(max_examples=20)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=7), st.integers(1, 8))
def test_an_images_embedding_does_not_depend_on_its_batch(seeds: list[int], batch: int) -> None:
    found = ENCODER.encode_images([picture(seed) for seed in seeds], batch=batch)
    for row, seed in zip(found, seeds, strict=True):
        torch.testing.assert_close(ENCODER.encode_images([picture(seed)])[0], row, rtol=0, atol=5e-6)


def test_nothing_in_is_nothing_out() -> None:
    empty = [
        ENCODER.encode_texts([]),
        ENCODER.encode_images([]),
        ENCODER.encode_ids(np.zeros((0, 12), np.int32)),
        ENCODER.encode_pixels(np.zeros((0, 8, 8, 3), np.uint8)),
    ]
    assert [tuple(out.shape) for out in empty] == [(0, 8)] * 4
    assert {out.dtype for out in empty} == {torch.float32}


def test_read_only_arrays_are_taken() -> None:
    """As they come out of shared memory."""
    ids, _ = TOKENIZER(["a cat"], 12)
    pixels = np.zeros((1, 8, 8, 3), np.uint8)
    ids.setflags(write=False)
    pixels.setflags(write=False)
    assert ENCODER.encode_ids(ids).shape == ENCODER.encode_pixels(pixels).shape == (1, 8)


def test_one_bad_image_is_an_input_error() -> None:
    with pytest.raises(InputError):
        ENCODER.encode_images([picture(0), b"no image"])


def test_the_constants_come_from_the_bundle() -> None:
    """A model that normalises otherwise embeds otherwise."""
    base = bundle()
    other = Encoder(Bundle(CONFIG, base.weights, TOKENIZER, Preprocess(size=8)))
    assert not torch.allclose(other.encode_images([picture(0)]), ENCODER.encode_images([picture(0)]))
    assert ENCODER.model.mean == (0.4, 0.5, 0.6)
    assert other.model.std == Preprocess(size=8).std


def test_the_weights_are_a_plain_safetensors_file(tmp_path: Path) -> None:
    saved(tmp_path)
    weights = safetensors.torch.load_file(tmp_path / "weights.safetensors")
    assert set(weights) == set(bundle().weights)
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
