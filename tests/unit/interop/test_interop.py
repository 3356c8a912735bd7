"""Checkpoints that cannot be read as they are: an error that says what differs, and nothing in them is run."""

import io
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from raylens.config import BagOfWordsConfig, ModelConfig, ResNetConfig, TextTransformerConfig, VisionTransformerConfig
from raylens.errors import AlreadyExistsError, BundleError, ConfigError
from raylens.inputs import Preprocess, Tokenizer
from raylens.interop import read_foreign, write_foreign
from raylens.interop.huggingface import from_hf, to_hf
from raylens.interop.openclip import from_openclip, to_openclip
from raylens.models import DualEncoder
from raylens.registry import Bundle

TOKENIZER = Tokenizer.train(["a photo of a cat"] * 3, 540)
CONFIG = ModelConfig(
    embed_dim=16,
    image=VisionTransformerConfig(size=32, patch=16, width=64, layers=2, heads=1),
    text=TextTransformerConfig(context=12, vocab=600, width=64, layers=1, heads=1),
)


def weights(config: ModelConfig = CONFIG) -> dict[str, Tensor]:
    torch.manual_seed(3)
    return dict(DualEncoder(config, end_id=1, mean=(0.5,) * 3, std=(0.5,) * 3).state_dict())


def bundle(config: ModelConfig = CONFIG) -> Bundle:
    return Bundle(config, weights(config), TOKENIZER, Preprocess(size=config.image.size))


def saved(folder: Path, tensors: dict[str, Any], name: str = "model.pt") -> Path:
    torch.save(tensors, folder / name)
    return folder / name


class TestWhatDiffers:
    def test_missing_unknown_and_misshapen_tensors_are_listed(self, tmp_path: Path) -> None:
        state = to_openclip(weights())
        del state["visual.ln_pre.bias"]
        state["visual.extra"] = torch.zeros(1)
        state["ln_final.weight"] = torch.ones(65)
        with pytest.raises(BundleError) as caught:
            read_foreign(saved(tmp_path, state), activation="gelu")
        for words in (
            "visual.ln_pre.bias is missing",
            "visual.extra is not known",
            "text.ln_final.weight has shape (65,), expected (64,)",
        ):
            assert words in str(caught.value)

    def test_the_activation_is_asked_for_and_never_overruled(self, tmp_path: Path) -> None:
        path = saved(tmp_path, to_openclip(weights()))
        with pytest.raises(BundleError, match=r"give --activation quick_gelu .* or gelu"):
            read_foreign(path)
        write_foreign(bundle(), tmp_path / "folder", "openclip")
        with pytest.raises(BundleError, match="activation quick_gelu, not gelu"):
            read_foreign(tmp_path / "folder", activation="gelu")

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"vision_cfg": {"timm_model_name": "resnet50"}}, "timm_model_name = 'resnet50'"),
            ({"vision_cfg": {"attentional_pool": True}}, "attentional_pool = True"),
            ({"text_cfg": {"no_causal_mask": True}}, "no_causal_mask = True"),
            ({"vision_cfg": {"width": "wide"}}, "width = 'wide': expected a whole number"),
            ({"vision_cfg": None}, "has no vision_cfg"),
        ],
    )
    def test_foreign_settings_of_openclip_are_named(self, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
        folder = tmp_path / "folder"
        write_foreign(bundle(), folder, "openclip")
        tree = json.loads((folder / "open_clip_config.json").read_text())
        for key, value in changes.items():
            tree["model_cfg"][key] = None if value is None else {**tree["model_cfg"][key], **value}
        (folder / "open_clip_config.json").write_text(json.dumps(tree))
        with pytest.raises(BundleError, match=words):
            read_foreign(folder)

    @pytest.mark.parametrize(
        ("key", "value", "words"),
        [
            ("model_type", "siglip", "model_type = 'siglip', expected 'clip'"),
            ("vision_config.intermediate_size", 100, "intermediate_size 100"),
            ("text_config.hidden_act", "gelu", "hidden_act is 'quick_gelu' in vision_config and 'gelu' in text_config"),
            ("vision_config.layer_norm_eps", 1e-6, "layer_norm_eps 1e-06"),
        ],
    )
    def test_foreign_settings_of_clipmodel_are_named(self, tmp_path: Path, key: str, value: object, words: str) -> None:
        folder = tmp_path / "folder"
        write_foreign(bundle(), folder, "hf")
        tree = json.loads((folder / "config.json").read_text())
        *parents, last = key.split(".")
        (tree[parents[0]] if parents else tree)[last] = value
        (folder / "config.json").write_text(json.dumps(tree))
        with pytest.raises(BundleError, match=words):
            read_foreign(folder)


class TestWhatIsNotRun:
    def test_a_pickled_object_is_not_made(self, tmp_path: Path) -> None:
        marker = tmp_path / "ran"

        class Evil:
            def __reduce__(self) -> tuple[Any, ...]:
                return os.mkdir, (str(marker),)

        path = saved(tmp_path, {"state_dict": to_openclip(weights()), "more": Evil()})
        with pytest.raises(BundleError, match=r"holds more than tensors, which is never unpickled"):
            read_foreign(path, activation="gelu")
        assert not marker.exists()

    @pytest.mark.parametrize("asks", ["posix mkdir", "builtins eval", "torch._utils _rebuild_qtensor"])
    def test_an_archive_that_asks_for_functions_is_refused(self, tmp_path: Path, asks: str) -> None:
        marker = tmp_path / "ran"
        module, name = asks.split()
        data = b"c" + f"{module}\n{name}\n".encode() + b"(V" + str(marker).encode() + b"\ntR."
        with zipfile.ZipFile(tmp_path / "archive.pt", "w") as archive:
            archive.writestr("archive/data.pkl", data)
            archive.writestr("archive/constants.pkl", pickle.dumps(()))
        with pytest.raises(BundleError, match=rf"cannot|can be read safely: .*{module}\.{name}"):
            read_foreign(tmp_path / "archive.pt")
        assert not marker.exists()

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_a_tensor_beyond_its_storage_is_refused(self, tmp_path: Path) -> None:
        class Holder(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weight = torch.nn.Parameter(torch.zeros(4))

        path = tmp_path / "archive.pt"
        torch.jit.save(torch.jit.script(Holder()), str(path))
        whole = zipfile.ZipFile(path)
        with zipfile.ZipFile(tmp_path / "cut.pt", "w") as cut:
            for name in whole.namelist():
                data = whole.read(name)
                cut.writestr(name, data[: len(data) // 2] if "/data/" in name else data)
        with pytest.raises(BundleError, match="not a TorchScript archive that can be read safely"):
            read_foreign(tmp_path / "cut.pt")

    def test_damaged_files_are_named(self, tmp_path: Path) -> None:
        path = saved(tmp_path, to_openclip(weights()))
        path.write_bytes(path.read_bytes()[:5000])
        (tmp_path / "x.safetensors").write_bytes(b"\xff" * 100)
        (tmp_path / "text.pt").write_bytes(b"hi\n")
        for name in ("model.pt", "text.pt", "x.safetensors"):
            with pytest.raises(BundleError, match=f"{name} is damaged"):
                read_foreign(tmp_path / name, activation="gelu")
        with pytest.raises(BundleError, match=r"no such file: .*none\.pt"):
            read_foreign(tmp_path / "none.pt")
        with pytest.raises(BundleError, match=r"has neither open_clip_config\.json nor config\.json"):
            read_foreign(tmp_path)


class TestForms:
    @pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
    def test_wrappings_are_taken_off(self, tmp_path: Path, prefix: str) -> None:
        state = {f"{prefix}{name}": tensor for name, tensor in to_openclip(weights()).items()}
        found = read_foreign(saved(tmp_path, {"epoch": 3, "state_dict": state}), activation="gelu")
        assert found.weights.keys() == weights().keys()

    def test_a_text_prefix_and_a_scale_of_one_element_are_known(self, tmp_path: Path) -> None:
        state = to_openclip(weights())
        text = ("token_embedding", "positional_embedding", "transformer.", "ln_final", "text_projection")
        state = {f"text.{name}" if name.startswith(text) else name: tensor for name, tensor in state.items()}
        state["logit_scale"] = state["logit_scale"].reshape(1)
        found = read_foreign(saved(tmp_path, state), activation="gelu")
        assert all(torch.equal(found.weights[name], tensor) for name, tensor in weights().items())

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_becomes_fp32_exactly(self, tmp_path: Path, dtype: torch.dtype) -> None:
        state = {name: tensor.to(dtype) for name, tensor in to_openclip(weights()).items()}
        found = read_foreign(saved(tmp_path, state), activation="gelu")
        for name, tensor in weights().items():
            assert found.weights[name].dtype == torch.float32
            assert torch.equal(found.weights[name], tensor.to(dtype).float())

    def test_names_go_both_ways(self) -> None:
        resnet = CONFIG.model_copy(update={"image": ResNetConfig(size=32, blocks=(1, 1, 1, 1), width=8)})
        for config in (CONFIG, resnet, CONFIG.model_copy(update={"logit_bias": True})):
            again = from_openclip(to_openclip(weights(config)))
            assert all(torch.equal(again[name], tensor) for name, tensor in weights(config).items())
            assert again.keys() == weights(config).keys()
        again = from_hf({**to_hf(weights()), "text_model.embeddings.position_ids": torch.arange(3)})
        assert again.keys() == weights().keys()
        assert all(torch.equal(again[name], tensor) for name, tensor in weights().items())
        part = to_hf(weights())
        del part["text_model.encoder.layers.0.self_attn.k_proj.weight"]
        with pytest.raises(BundleError, match=r"of self_attn\.\{q,k,v\}_proj only q, v are there"):
            from_hf(part)

    def test_another_size(self) -> None:
        found = read_only(bundle())
        assert found.resized(32) is found
        assert found.resized(64).weights["visual.positional_embedding"].shape == (17, 64)
        with pytest.raises(ConfigError, match="image size 40 must be a multiple of the model's patch, 16"):
            found.resized(40)
        resnet = CONFIG.model_copy(update={"image": ResNetConfig(size=32, blocks=(1, 1, 1, 1), width=8)})
        with pytest.raises(ConfigError, match="this tower is a ResNet"):
            read_only(bundle(resnet)).resized(64)

    def test_a_checkpoint_without_a_tokenizer_asks_for_one(self) -> None:
        with pytest.raises(BundleError, match="give --tokenizer"):
            read_only(bundle()).bundle(None, "x.pt")


def read_only(one: Bundle) -> Any:
    from raylens.interop import Foreign

    return Foreign("openclip", one.config, one.weights, one.preprocess, None)


class TestExport:
    def test_what_is_there_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "mine.txt").write_text("kept")
        for form in ("openclip", "hf"):
            with pytest.raises(AlreadyExistsError, match="exists already"):
                write_foreign(bundle(), tmp_path, form)
        assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]

    @pytest.mark.parametrize("form", ["openclip", "hf", "openai"])
    def test_a_bag_of_words_has_no_counterpart(self, tmp_path: Path, form: str) -> None:
        config = CONFIG.model_copy(update={"text": BagOfWordsConfig(context=12, vocab=600, width=64)})
        with pytest.raises(BundleError):
            write_foreign(bundle(config), tmp_path / "out", form)
        assert not (tmp_path / "out").exists()

    def test_a_logit_bias_goes_through_openclip_alone(self, tmp_path: Path) -> None:
        config = CONFIG.model_copy(update={"logit_bias": True})
        write_foreign(bundle(config), tmp_path / "out", "openclip")
        found = read_foreign(tmp_path / "out")
        assert found.config == config
        assert found.weights["logit_bias"].tolist() == [-10.0]
        for form in ("hf", "openai"):
            with pytest.raises(BundleError, match="logit bias"):
                write_foreign(bundle(config), tmp_path / form, form)

    def test_an_exported_file_holds_tensors_alone(self, tmp_path: Path) -> None:
        write_foreign(bundle(), tmp_path / "out.pt", "openai")
        tree = torch.load(io.BytesIO((tmp_path / "out.pt").read_bytes()), weights_only=True)
        assert all(isinstance(value, Tensor) for value in tree.values())
        assert int(tree["input_resolution"]) == 32
        assert safetensors.torch.save(to_openclip(weights()))
