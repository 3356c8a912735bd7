"""The preparation of a run: its data, tokenizer, length and configuration, determined and recorded once."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from raylens.config import RunConfig, SettingsFile
from raylens.data import Manifest, Plan, build_plan, check_budget, write_rejected
from raylens.errors import ConfigError, NotFoundError
from raylens.inputs import Preprocess, Tokenizer
from raylens.messages import Say, warning
from raylens.storage import Store, open_store
from raylens.train.evaluation.eval_sets import EvalSets, open_eval_sets
from raylens.train.run.data_lock import load_manifests, lock_manifests
from raylens.train.runs.run_dir import CONFIG

if TYPE_CHECKING:
    from raylens.registry import Bundle

__all__ = ["RUN_SETTINGS", "PreparedRun", "prepare", "run_store"]

# Settings that may differ when a run resumes, because they do not change the result.
FREE = ("storage", "registry", "resources", "zero", "checkpoint", "evaluation", "tracking", "log_every_steps")
RUN_SETTINGS = SettingsFile("run", CONFIG, FREE)


@dataclass(frozen=True)
class PreparedRun:
    """A run that is ready to start or to resume."""

    config: RunConfig
    store: Store
    manifests: list[Manifest]
    """The manifest of each data set of ``config.data.train``."""
    plan: Plan
    tokenizer: Tokenizer
    preprocess: Preprocess
    steps: int
    evaluation: EvalSets


def run_store(config: RunConfig) -> Store:
    """Return the folder of a run."""
    return open_store(config.storage) / config.name


def prepare(config: RunConfig, say: Say) -> PreparedRun:
    """Index the shards, train the tokenizer and write the configuration, each once in the life of a run.

    Raises:
        ConfigError: the run exists with other settings, the tokenizer has more tokens than the vocabulary, or the
            pretrained model has another architecture.
        NotFoundError: the pretrained model does not exist.
        ManifestError: there are no shards, or none is usable.
        QuarantineError: too many samples cannot be used.
    """
    store = run_store(config)
    RUN_SETTINGS.check(store, config)
    manifests = load_manifests(store, config.data.train, open_store(config.storage) / "manifests", say)
    for manifest in manifests:
        read, why = len(manifest) + manifest.rejected, manifest.rejected_summary()
        check_budget(manifest.rejected, read, config.data.quarantine_budget, why)
    plan = build_plan(config, manifests)
    if plan.samples < config.global_batch:
        say(warning(f"{plan.samples:,} samples for global_batch = {config.global_batch}: every batch repeats some"))
    pretrained = _pretrained(config)
    tokenizer = _tokenizer(store, manifests, config, pretrained)
    evaluation = open_eval_sets(config.evaluation, open_store(config.storage) / "manifests", say)
    # Only now: a run that cannot start must not block its name for another attempt.
    RUN_SETTINGS.claim(store, config)
    store.write("tokenizer.json", tokenizer.to_json().encode())
    write_rejected(store, manifests)
    lock_manifests(store, manifests)
    return PreparedRun(
        config=config,
        store=store,
        manifests=manifests,
        plan=plan,
        tokenizer=tokenizer,
        # The preprocessing of a pretrained image tower is part of the model, as its tokenizer is.
        preprocess=Preprocess(size=config.model.image.size) if pretrained is None else pretrained.preprocess,
        steps=config.length.steps(sum(order.epoch_size for order in plan.orders), config.global_batch),
        evaluation=evaluation,
    )


def _pretrained(config: RunConfig) -> "Bundle | None":
    if config.start_from is None:
        return None
    from raylens.train.run.pretrained import load_pretrained  # imports torch

    return load_pretrained(config)


def _tokenizer(store: Store, manifests: list[Manifest], config: RunConfig, pretrained: "Bundle | None") -> Tokenizer:
    try:
        return Tokenizer.from_json(store.read_text("tokenizer.json"))
    except NotFoundError:
        if pretrained is not None:
            return pretrained.tokenizer
        if config.tokenizer is not None:
            return _given_tokenizer(config, config.tokenizer)
        return Tokenizer.train(
            (text for manifest in manifests for text in manifest.captions()), config.model.text.vocab
        )


def _given_tokenizer(config: RunConfig, path: str) -> Tokenizer:
    tokenizer, rows = Tokenizer.from_file(Path(path)), config.model.text.vocab
    if tokenizer.vocab_size > rows:
        raise ConfigError(
            f"tokenizer = {path!r} has {tokenizer.vocab_size} tokens, model.text.vocab is {rows}: raise it"
        )
    return tokenizer
