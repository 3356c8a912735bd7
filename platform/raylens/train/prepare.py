"""Before the workers start: what the run reads and how long it is, settled once and written down."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raylens.config import RunConfig, dump_yaml, load_yaml
from raylens.data import Manifest, Plan
from raylens.data.build_plan import build_plan
from raylens.data.quarantine import check_budget, write_rejected
from raylens.errors import AlreadyExistsError, ConfigError, NotFoundError
from raylens.inputs import Preprocess, Tokenizer
from raylens.registry import Bundle, Registry
from raylens.storage import Store, open_store
from raylens.train.pinned import manifests_of, pin

__all__ = ["Prepared", "claim", "prepare", "run_store"]

# What may differ when a run is resumed: it does not change what is learned.
FREE = ("storage", "registry", "scale", "checkpoint", "log_every_steps")


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to start or to go on."""

    config: RunConfig
    store: Store
    manifests: list[Manifest]
    """Of each data set of ``config.data.train``."""
    plan: Plan
    tokenizer: Tokenizer
    preprocess: Preprocess
    steps: int


def run_store(config: RunConfig) -> Store:
    """The folder of a run."""
    return open_store(config.storage) / config.name


def prepare(config: RunConfig, say: Callable[[str], None]) -> Prepared:
    """Index the shards, train the tokenizer, write the configuration; each only once for a run.

    Raises:
        ConfigError: the run exists with other settings, or the vocabulary is too small for the tokenizer.
        ManifestError: no shards, or none usable.
        QuarantineError: too many samples cannot be used.
    """
    store = run_store(config)
    check_claim(store, config)
    manifests = manifests_of(store, config.data.train, open_store(config.storage) / "manifests", say)
    for manifest in manifests:
        read, why = len(manifest) + manifest.rejected, manifest.rejected_summary()
        check_budget(manifest.rejected, read, config.data.quarantine_budget, why)
    plan = build_plan(config, manifests)
    if plan.samples < config.global_batch:
        say(f"warning: {plan.samples:,} samples for global_batch = {config.global_batch}: every batch repeats some")
    tokenizer = _tokenizer(store, manifests, config)
    # Only now: what cannot start must not keep its name from another try.
    claim(store, config)
    store.write("tokenizer.json", tokenizer.to_json().encode())
    write_rejected(store, manifests)
    pin(store, manifests)
    return Prepared(
        config=config,
        store=store,
        manifests=manifests,
        plan=plan,
        tokenizer=tokenizer,
        preprocess=Preprocess(size=config.model.image.size),
        steps=config.length.steps(sum(order.epoch_size for order in plan.orders), config.global_batch),
    )


def claim(store: Store, config: RunConfig) -> None:
    """Write ``config.yaml`` once; later starts must agree with it in everything that changes the result."""
    try:
        store.write_once("config.yaml", dump_yaml(config).encode())
    except AlreadyExistsError:
        check_claim(store, config)


def check_claim(store: Store, config: RunConfig) -> None:
    """Refuse a run that exists with other settings.

    Raises:
        ConfigError: names each setting, with both values.
    """
    try:
        saved = load_yaml(store.read_text("config.yaml"), f"{store.describe()}/config.yaml")
    except NotFoundError:
        return
    if differing := _differences(saved, config.model_dump(mode="json")):
        raise ConfigError(
            f"run {config.name!r} exists at {store.describe()} with other settings: {'; '.join(differing)}. "
            "Use another name, delete that folder, or go back to its settings"
        )


def _differences(saved: dict[str, Any], now: dict[str, Any], path: str = "") -> list[str]:
    lines = []
    for key in [*saved, *(key for key in now if key not in saved)]:
        name, old, new = f"{path}{key}", saved.get(key), now.get(key)
        if not path and key in FREE:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            lines += _differences(old, new, f"{name}.")
        elif old != new:
            lines.append(f"{name} was {old!r}, is now {new!r}")
    return lines


def _tokenizer(store: Store, manifests: list[Manifest], config: RunConfig) -> Tokenizer:
    try:
        return Tokenizer.from_json(store.read_text("tokenizer.json"))
    except NotFoundError:
        if config.start_from is not None:
            return _beginning(config, config.start_from).tokenizer
        if config.tokenizer is not None:
            return _given_tokenizer(config, config.tokenizer)
        return Tokenizer.train((text for one in manifests for text in one.captions()), config.model.text.vocab)


def _given_tokenizer(config: RunConfig, path: str) -> Tokenizer:
    tokenizer, rows = Tokenizer.from_file(Path(path)), config.model.text.vocab
    if tokenizer.vocab_size > rows:
        raise ConfigError(
            f"tokenizer = {path!r} has {tokenizer.vocab_size} tokens, model.text.vocab is {rows}: raise it"
        )
    return tokenizer


def _beginning(config: RunConfig, name: str) -> Bundle:
    """The model that a run starts from, whose architecture must be the run's.

    Raises:
        ConfigError: it is another; names each setting, with both values.
    """
    bundle = Registry(config.registry_uri).load(name)[1].bundle
    if differing := _differences(bundle.config.model_dump(mode="json"), config.model.model_dump(mode="json"), "model."):
        raise ConfigError(f"start_from = {name!r} is of another architecture: {'; '.join(differing)}")
    return bundle
