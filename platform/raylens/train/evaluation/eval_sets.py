"""The evaluation sets of a run, located and checked before it starts."""

from dataclasses import dataclass

from raylens.config import EvaluationConfig, SourceConfig
from raylens.data import manifest_for, ray_map
from raylens.errors import ConfigError, DataError, NotFoundError
from raylens.evaluate import LabelledShards
from raylens.messages import Say
from raylens.storage import Store

__all__ = ["EvalSets", "open_eval_sets"]


@dataclass(frozen=True)
class EvalSets:
    """The evaluation sets of a run; instances are pickled."""

    pairs_uri: str | None = None
    """URI of the manifest of the pairs."""
    pairs: int = 0
    """Number of pairs that are used."""
    labelled: tuple[tuple[str, LabelledShards], ...] = ()
    """The labelled sets with their names."""

    def __bool__(self) -> bool:
        return self.pairs_uri is not None or bool(self.labelled)


def open_eval_sets(config: EvaluationConfig, cache: Store, say: Say) -> EvalSets:
    """Index the pairs, and read the classes of the labelled sets.

    Raises:
        ConfigError: a set cannot be read or used; names the field.
        ManifestError: there are no shards, or none is usable.
        DataError: the first sample of a labelled set has no label.
    """
    labelled = tuple((name, _labelled(name, source)) for name, source in config.zero_shot.items())
    if config.pairs is None:
        return EvalSets(labelled=labelled)
    manifest = manifest_for(config.pairs, cache, ray_map)
    used = min(config.most_pairs, len(manifest))
    if used < 2:
        raise ConfigError(f"evaluation.pairs = {config.pairs.uri!r} has {used} usable samples: it needs two at least")
    say(f"evaluating every {config.every_steps} steps on {used:,} of {len(manifest):,} pairs of {config.pairs.uri}")
    return EvalSets(manifest.home, used, labelled)


def _labelled(name: str, config: SourceConfig) -> LabelledShards:
    field = f"evaluation.zero_shot.{name} = {config.uri!r}"
    try:
        labelled = LabelledShards.open(config)
    except NotFoundError as error:
        raise ConfigError(f"{field}: {error}") from None
    try:
        first = next(labelled.samples(labelled.shards[0]), None)
    except DataError as error:
        raise type(error)(f"{field}: {error}") from None
    if first is None:
        raise DataError(f"{field}: its first shard, {labelled.shards[0].path}, has no sample")
    return labelled
