"""The configuration tree: what it accepts, what it says when it does not, and the ways in and out."""

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from raylens.config import (
    DataConfig,
    LengthConfig,
    RunConfig,
    SourceConfig,
    apply_overrides,
    dump_yaml,
    load_yaml,
    merge,
    parse_assignment,
    validated,
)
from raylens.errors import ConfigError
from raylens.train.run.prepare import FREE
from raylens.workloads.recipes import RECIPES, configure

DOCS = Path(__file__).parents[3] / "docs" / "configuration.md"


def refused(source: str, *assignments: str) -> str:
    """The message of the error that a configuration ends in."""
    with pytest.raises(ConfigError) as caught:
        configure(source, assignments)
    return str(caught.value)


def leaves(node: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    """Every key of the tree with its default."""
    found: dict[str, Any] = {}
    for name, field in node.model_fields.items():
        # Where a field has kinds, the page lists the keys of the default one.
        kind = type(field.default) if isinstance(field.default, BaseModel) else field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= leaves(kind, f"{prefix}{name}.")
        else:
            found[prefix + name] = "required" if field.is_required() else field.default
    return found


# Any text that a path or a URI could be, and many that it could not: YAML must give each of them back.
TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=40)
CHANGES: dict[str, st.SearchStrategy[Any]] = {
    "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True),
    "storage": TEXT,
    "registry": st.none() | TEXT,
    "seed": st.integers(0, 2**32 - 1),
    "precision": st.just("fp32"),
    "data.train": TEXT,
    "data.crop_min_scale": st.floats(0.0, 1.0, exclude_min=True),
    "data.quarantine_budget": st.floats(0.0, 1.0),
    "objective.temperature": st.floats(0.01, 1.0),
    "optim.peak_lr": st.floats(0.0, 1e300, exclude_min=True),
    "optim.eps": st.floats(1e-300, 1.0),
    "optim.schedule.warmup_steps": st.integers(0, 10**12),
    "length.epochs": st.floats(0.0, 1e6, exclude_min=True),
    "zero.stage": st.integers(0, 3),
    "model.activation": st.sampled_from(["gelu", "quick_gelu"]),
    "model.text.context": st.integers(3, 10**6),
    "checkpoint.keep_last": st.integers(1, 10**9),
}


def nested(key: str, value: object) -> dict[str, Any]:
    """``"a.b", 1`` to ``{"a": {"b": 1}}``."""
    for part in reversed(key.split(".")):
        value = {part: value}
    assert isinstance(value, dict)
    return value


@given(st.fixed_dictionaries({}, optional=CHANGES))
def test_yaml_gives_back_the_same_tree(changes: dict[str, Any]) -> None:
    tree = RECIPES["digits"]().model_dump(mode="json")
    for key, value in changes.items():
        tree = merge(tree, nested(key, value))
    config = validated(RunConfig, tree)
    text = dump_yaml(config)
    again = validated(RunConfig, load_yaml(text, "run.yaml"))
    assert again == config
    assert dump_yaml(again) == text


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_printed_recipe_is_complete(recipe: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(dump_yaml(configure(recipe)), encoding="utf-8")
    assert configure(str(path)) == RECIPES[recipe]()


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("data.run_length=1", "unknown key 'data.run_length' (did you mean 'chunk_size'?); allowed here: check_hashes"),
        ("data.runs_per_unit=1", "unknown key 'data.runs_per_unit' (did you mean 'chunks_per_block'?); allowed"),
        ("sede=1", "unknown key 'sede' (did you mean 'seed'?); allowed here: checkpoint, data, evaluation"),
        (
            "optim.peek_lr=1",
            "unknown key 'optim.peek_lr' (did you mean 'peak_lr'?); allowed here: beta1, beta2, clip_norm, ema_decay",
        ),
        ("scale.workers=1", "unknown key 'scale' (did you mean 'resources'?); allowed here: checkpoint, data"),
        ("objective.products=bf16", "unknown key 'objective.products' (did you mean 'matmul_precision'?); allowed"),
        ("optim.products=1", "unknown key 'optim.products'; allowed here: beta1, beta2, clip_norm, ema_decay"),
        (
            "model.image.kernel=1",
            "unknown key 'model.image.kernel'; allowed here: heads, kind, layers, patch, size, width",
        ),
    ],
)
def test_an_unknown_key_is_named_with_what_is_allowed(assignment: str, words: str) -> None:
    assert words in refused("digits", assignment)


def test_a_dotted_key_in_a_file_is_explained(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("recipe: digits\noptim.peak_lr: 1e-3\n")
    message = refused(str(tmp_path / "x.yaml"))
    assert (
        "unknown key 'optim.peak_lr' (in a file, nest it: optim: {peak_lr: ...}); allowed here: checkpoint" in message
    )


def test_keys_that_are_no_text_are_unknown_keys(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("recipe: digits\n1: x\n")
    assert refused(str(tmp_path / "x.yaml")).startswith("unknown key '1'; allowed here: ")


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("seed=-1", "seed = -1: input should be greater than or equal to 0"),
        ("seed=4294967296", "seed = 4294967296: input should be less than 4294967296"),
        ("seed=0.5", "seed = 0.5: input should be a valid integer"),
        ("data.crop_min_scale=0", "data.crop_min_scale = 0: input should be greater than 0"),
        ("data.crop_min_scale=1.1", "data.crop_min_scale = 1.1: input should be less than or equal to 1"),
        ("data.max_pixels=178956971", "data.max_pixels = 178956971: input should be less than or equal to 178956970"),
        ("objective.max_logit_scale=301", "objective.max_logit_scale = 301: input should be less than or equal to 300"),
        ("optim.peak_lr=0", "optim.peak_lr = 0: input should be greater than 0"),
        ("optim.peak_lr=.inf", "optim.peak_lr = inf: input should be a finite number"),
        ("optim.peak_lr=nan", "optim.peak_lr = 'nan': input should be a finite number"),
        ("optim.peak_lr=fast", "optim.peak_lr = 'fast': input should be a valid number"),
        ("optim.beta2=1", "optim.beta2 = 1: input should be less than 1"),
        (
            "optim=null",
            "optim = None: expected keys and values: beta1, beta2, clip_norm, ema_decay, eps, groups",
        ),
        ("optim.peak_lr.base=1", "optim.peak_lr = {'base': 1}: input should be a valid number"),
        ("zero.stage=4", "zero.stage = 4: input should be 0, 1, 2 or 3"),
        ("precision=bf8", "precision = 'bf8': input should be 'fp32'"),
        ("resources.gpus_per_worker=2", "resources.gpus_per_worker = 2: input should be less than or equal to 1"),
        ("name=a b", "name = 'a b': use at most 100 letters, digits, '.', '_' and '-', beginning with a letter or"),
        ("name=12", "name = 12: input should be a valid string; quote"),
        ("model.image.size=30", "size 30 must be a multiple of patch 8"),
        ("model.text.heads=5", "width 96 must be a multiple of heads 5"),
        ("objective.temperature=14.3", "a temperature is at most 1; set a scale of 14.3 as objective.logit_scale"),
        (
            "objective.logit_scale=0.07",
            "a scale is at least 1; set a temperature of 0.07 as objective.temperature",
        ),
        (
            "objective.logit_scale=14.3",
            "exactly one of objective.temperature (now 0.07) and objective.logit_scale",
        ),
        ("objective.temperature=null", "exactly one of objective.temperature (now None)"),
        ("objective.temperature=0.005", "starts at 200, above objective.max_logit_scale = 100"),
        ("objective.kind=bag_of_words", "needs model.text.kind = 'cbow', not 'transformer'"),
        ("objective.kind=sigmoid", "the sigmoid loss has a bias"),
        ("resources.micro_batch=48", "does not divide a worker's batch, 64 (global_batch / resources.workers)"),
        ("resources.micro_batch=128", "does not divide a worker's batch, 64"),
        ("model.text.vocab=513", "model.text.vocab = 513: input should be greater than or equal to 514"),
    ],
)
def test_a_refusal_names_field_value_and_remedy(assignment: str, words: str) -> None:
    assert words in refused("digits", assignment)


@pytest.mark.parametrize("word", ["true", "yes", "on", "no", "False"])
def test_a_switch_is_not_a_number(word: str) -> None:
    """YAML reads all of these as booleans, and Python would count with them."""
    for key in ("resources.workers", "optim.peak_lr", "zero.stage", "length.epochs"):
        assert f"{key} = {word in ('true', 'yes', 'on')}: true and false" in refused("digits", f"{key}={word}")


def test_all_complaints_come_at_once() -> None:
    message = refused("digits", "seed=-1", "optim.peek_lr=1")
    assert "seed = -1" in message
    assert "optim.peek_lr" in message


@given(st.integers(1, 4096), st.integers(1, 64))
def test_the_batch_is_shared_equally_or_refused(batch: int, workers: int) -> None:
    assignments = [f"global_batch={batch}", f"resources.workers={workers}"]
    if batch % workers:
        words = f"global_batch = {batch} cannot be shared equally by resources.workers = {workers}: "
        assert refused("digits", *assignments).startswith(words)
    else:
        assert configure("digits", assignments).worker_batch * workers == batch


def test_length_is_exactly_one_of_two() -> None:
    epochs = RECIPES["digits"]().length.epochs
    words = f"exactly one of length.epochs (now {epochs}) and length.samples_seen (now 10)"
    assert words in refused("digits", "length.samples_seen=10")
    assert "exactly one of" in refused("digits", "length.epochs=null")
    assert configure("digits", ["length.epochs=null", "length.samples_seen=10"]).length.samples_seen == 10


@given(st.integers(1, 10**6), st.integers(1, 10**4), st.integers(1, 100))
def test_steps_round_up_to_whole_batches(samples: int, batch: int, epochs: int) -> None:
    assert LengthConfig(epochs=epochs).steps(samples, batch) == -(-samples * epochs // batch)
    assert LengthConfig(samples_seen=samples).steps(1, batch) == -(-samples // batch)


def test_a_fraction_of_an_epoch_is_at_least_one_step() -> None:
    assert LengthConfig(epochs=1e-9).steps(10, 5) == 1
    assert LengthConfig(epochs=0.5).steps(101, 10) == math.ceil(5.05)


def test_the_tree_is_frozen() -> None:
    config = RECIPES["digits"]()
    for node, key in ((config, "seed"), (config.optim, "peak_lr"), (config.model.image, "size")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(node, key, 1)


def test_missing_keys_are_named() -> None:
    with pytest.raises(ConfigError, match=r"^name is missing: add it; data\.train is missing: add it$"):
        validated(RunConfig, {"data": {}})


def test_the_registry_is_beside_the_runs() -> None:
    config = RunConfig(name="r", data=DataConfig(train="x"), storage="s3://bucket/runs/?region=eu-west-1")
    assert config.registry_uri == "s3://bucket/runs/registry?region=eu-west-1"
    assert config.model_copy(update={"registry": "elsewhere"}).registry_uri == "elsewhere"


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("optim.peak_lr=0.5", ["optim", "peak_lr"], 0.5),
        ("optim.peak_lr=1e-3", ["optim", "peak_lr"], "1e-3"),
        ("registry=null", ["registry"], None),
        ("registry=", ["registry"], None),
        ("name='12'", ["name"], "12"),
        ("data.train=s3://b/p?region=eu-west-1", ["data", "train"], "s3://b/p?region=eu-west-1"),
        ("x=[1, two]", ["x"], [1, "two"]),
        ("x={a: 1}", ["x"], {"a": 1}),
        (" seed =3", ["seed"], 3),
    ],
)
def test_assignments_are_read_as_yaml(assignment: str, path: list[str], value: object) -> None:
    assert parse_assignment(assignment) == (path, value)


def test_scientific_notation_becomes_a_number() -> None:
    assert configure("digits", ["optim.peak_lr=1e-3"]).optim.peak_lr == 1e-3


@pytest.mark.parametrize("assignment", ["x", "", "=1", ".=1", "a..b=1", "a.=1"])
def test_an_assignment_needs_a_key_and_an_equals_sign(assignment: str) -> None:
    assert f"--set {assignment!r}: write it as key=value, e.g. --set optim.peak_lr=1e-3" in refused(
        "digits", assignment
    )


@pytest.mark.parametrize(
    "value", ["[", "a: b: c", "'", "2001-99-99", "0x_", "9" * 5000, "[" * 1000, "\x00", "{a: 1, a: 2}"]
)
def test_a_value_that_is_no_yaml_is_refused(value: str) -> None:
    message = refused("digits", f"name={value}")
    assert message.startswith("--set name: the value ")
    assert "not valid YAML" in message
    assert message.endswith("; quote it")


@given(st.text(max_size=30))
def test_any_assignment_is_read_or_refused(text: str) -> None:
    try:
        path, _ = parse_assignment(text)
    except ConfigError:
        return
    assert all(path)


def test_later_assignments_win_and_the_base_is_left_alone() -> None:
    base = {"a": {"b": 1, "c": 2}}
    assert apply_overrides(base, ["a.b=3", "a.b=4", "d=5"]) == {"a": {"b": 4, "c": 2}, "d": 5}
    assert base == {"a": {"b": 1, "c": 2}}


def test_a_number_names_an_entry_of_a_list() -> None:
    base: dict[str, Any] = {"models": [{"model": "a", "image": {"cpus": 1}}, {"model": "b"}], "names": ["x", "y"]}
    changed = apply_overrides(base, ["models.1.image.cpus=4", "models.0.image.cpus=2", "names.0=z"])
    assert changed == {
        "models": [{"model": "a", "image": {"cpus": 2}}, {"model": "b", "image": {"cpus": 4}}],
        "names": ["z", "y"],
    }
    assert base["names"] == ["x", "y"]
    assert base["models"][0] == {"model": "a", "image": {"cpus": 1}}
    assert apply_overrides(base, ["names={}"])["names"] == {}
    with pytest.raises(ConfigError, match=r"models\.2: models has 2, counted from 0"):
        apply_overrides(base, ["models.2.model=c"])


TREES = st.recursive(
    st.integers() | st.none(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=8
).filter(lambda tree: isinstance(tree, dict))


@given(TREES, TREES)
def test_merge_lays_the_changes_over_the_base(base: dict[str, Any], changes: dict[str, Any]) -> None:
    merged = merge(base, changes)
    assert set(merged) == set(base) | set(changes)
    for key, value in merged.items():
        if key not in changes:
            assert value == base[key]
        elif isinstance(changes[key], dict) and isinstance(base.get(key), dict):
            assert value == merge(base[key], changes[key])
        else:
            assert value == changes[key]
    assert merge(base, {}) == base
    assert merge(merged, changes) == merged


def test_a_file_changes_keys_of_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "hotter.yml"
    path.write_text("recipe: digits\nname: hotter\nobjective:\n  temperature: 5e-2\n", encoding="utf-8")
    base = RECIPES["digits"]()
    expected = {
        **base.model_dump(),
        "name": "hotter",
        "objective": {**base.objective.model_dump(), "temperature": 0.05},
    }
    assert configure(str(path)).model_dump() == expected
    assert configure(str(path), ["name=last"]).name == "last"


def test_a_file_without_a_recipe_is_complete_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("name: own\ndata:\n  train: shards\n", encoding="utf-8")
    assert configure(str(path)) == RunConfig(name="own", data=DataConfig(train="shards"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("recipe: digit\n", "unknown recipe 'digit'; recipes: digits, rn50"),
        ("", "expected keys and values, not NoneType"),
        ("- a\n", "expected keys and values, not list"),
        ("name: a\nb: [\n", "line 3: not valid YAML: "),
        ("when: 2001-99-99\n", "not valid YAML: month must be in 1..12"),
        ("optim:\n  eps: 1\noptim:\n  beta1: 0\n", "line 3: not valid YAML: the key 'optim' occurs twice"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    message = refused(str(path))
    assert words in message
    assert words.startswith("unknown recipe") or str(path) in message


def test_sources_that_are_not_there_are_named(tmp_path: Path) -> None:
    assert "unknown recipe 'digitz'; recipes: digits, rn50" in refused("digitz")
    missing = str(tmp_path / "none.yaml")
    assert f"cannot read {missing}: No such file or directory; recipes: digits, rn50" in refused(missing)
    (tmp_path / "folder.yaml").mkdir()
    assert "Is a directory" in refused(str(tmp_path / "folder.yaml"))
    (tmp_path / "latin.yaml").write_bytes("name: café".encode("latin-1"))
    assert "not UTF-8 text" in refused(str(tmp_path / "latin.yaml"))


def listed(page: str) -> dict[str, str]:
    rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines())
    return {
        cells[0].strip("`"): cells[1].strip("`").replace("_", "")
        for cells in rows
        if len(cells) == 3 and cells[0].startswith("`")
    }


def defaults(node: type[BaseModel]) -> dict[str, str]:
    return {
        key: default if default == "required" else "null" if default is None else str(default).replace("_", "")
        for key, default in leaves(node).items()
    }


def test_the_page_lists_every_key_with_its_default() -> None:
    keys, _, of_a_data_set = DOCS.read_text(encoding="utf-8").partition("## Data sets")
    expected = defaults(RunConfig)
    # The one default that stands at its parent: LengthConfig() alone is refused.
    expected["length.epochs"] = str(RunConfig(name="r", data=DataConfig.model_validate({"train": "x"})).length.epochs)
    assert listed(keys) == expected
    assert listed(of_a_data_set) == defaults(SourceConfig)


def test_the_page_names_every_recipe() -> None:
    table = DOCS.read_text(encoding="utf-8").partition("| recipe | what it is |")[2].partition("**A file**")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert sorted(name.strip(" `") for cell in cells for name in cell.split(",")) == sorted(RECIPES)


@pytest.mark.parametrize("page", ["configuration.md", "training.md"])
def test_the_pages_name_what_may_differ_when_a_run_is_resumed(page: str) -> None:
    """The folder of runs aside: in another one it is another run."""
    text = " ".join(DOCS.with_name(page).read_text(encoding="utf-8").split())
    *others, last = [f"`{key}`" for key in FREE if key != "storage"]
    assert f"{', '.join(others)} and {last}" in text
