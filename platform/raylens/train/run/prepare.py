"""Before the workers start: what the run reads and how long it is, settled once and written down."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from raylens.config import RunConfig, SettingsFile
from raylens.data import Manifest, Plan
from raylens.data.build_plan import build_plan
from raylens.data.quarantine import check_budget, write_rejected
from raylens.errors import ConfigError, NotFoundError
from raylens.inputs import Preprocess, Tokenizer
from raylens.messages import Say
from raylens.storage import Store, open_store
from raylens.train.evaluation.eval_sets import EvaluationSets, evaluation_sets
from raylens.train.run.data_lock import manifests_of, pin
from raylens.train.runs.run_dir import CONFIG

if TYPE_CHECKING:
    from raylens.registry import Bundle

__all__ = ["RUN_SETTINGS", "Prepared", "prepare", "run_store"]

# What may differ when a run is resumed: it does not change what is learned.
FREE = ("storage", "registry", "resources", "zero", "checkpoint", "evaluation", "tracking", "log_every_steps")
RUN_SETTINGS = SettingsFile("run", CONFIG, FREE)


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
    evaluation: EvaluationSets


def run_store(config: RunConfig) -> Store:
    """The folder of a run."""
    return open_store(config.storage) / config.name


def prepare(config: RunConfig, say: Say) -> Prepared:
    """Index the shards, train the tokenizer, write the configuration; each only once for a run.

    Raises:
        ConfigError: the run exists with other settings, the vocabulary is too small for the tokenizer, or the model
            to begin with is of another architecture.
        NotFoundError: there is no such model to begin with.
        ManifestError: no shards, or none usable.
        QuarantineError: too many samples cannot be used.
    """
    store = run_store(config)
    RUN_SETTINGS.check(store, config)
    manifests = manifests_of(store, config.data.train, open_store(config.storage) / "manifests", say)
    for manifest in manifests:
        read, why = len(manifest) + manifest.rejected, manifest.rejected_summary()
        check_budget(manifest.rejected, read, config.data.quarantine_budget, why)
    plan = build_plan(config, manifests)
    if plan.samples < config.global_batch:
        say(f"{plan.samples:,} samples for global_batch = {config.global_batch}: every batch repeats some", "warning")
    begun = _begun(config)
    tokenizer = _tokenizer(store, manifests, config, begun)
    evaluation = evaluation_sets(config.evaluation, open_store(config.storage) / "manifests", say)
    # Only now: what cannot start must not keep its name from another try.
    RUN_SETTINGS.claim(store, config)
    store.write("tokenizer.json", tokenizer.to_json().encode())
    write_rejected(store, manifests)
    pin(store, manifests)
    return Prepared(
        config=config,
        store=store,
        manifests=manifests,
        plan=plan,
        tokenizer=tokenizer,
        # What its image tower was trained on is part of a model, as its tokenizer is.
        preprocess=Preprocess(size=config.model.image.size) if begun is None else begun.preprocess,
        steps=config.length.steps(sum(order.epoch_size for order in plan.orders), config.global_batch),
        evaluation=evaluation,
    )


def _begun(config: RunConfig) -> "Bundle | None":
    if config.start_from is None:
        return None
    from raylens.train.run.pretrained import beginning  # with torch

    return beginning(config)


def _tokenizer(store: Store, manifests: list[Manifest], config: RunConfig, begun: "Bundle | None") -> Tokenizer:
    try:
        return Tokenizer.from_json(store.read_text("tokenizer.json"))
    except NotFoundError:
        if begun is not None:
            return begun.tokenizer
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
