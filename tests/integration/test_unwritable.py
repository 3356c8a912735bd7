"""A store that does not take what a run writes: a bucket, and a disk, that are read-only or full for a while."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from raylens.cluster import session
from raylens.config import RunConfig, dump_yaml, validated
from raylens.messages import quiet
from raylens.registry import Registry
from raylens.storage import Store, open_store
from raylens.train import train
from raylens.train.checkpoint.store import Checkpoints
from raylens.train.loop.events import Checkpointed, Metrics, Restarting, RunEvent, Warned
from raylens.train.runs.jsonl import read_metrics
from tests.helpers.faulty_store import FULL, READ_ONLY, faulty_store
from tests.helpers.ranks import ROOT

MakeShards = Callable[..., Store]
DRIVER = Path(__file__).with_name("_unwritable_driver.py")
STEPS = 200
REFUSED = ((30, 80), (110, 160))
"""From the first checkpoint at or behind a step to another step: nothing can be written."""


def config_of(data: Store, storage: str) -> RunConfig:
    tree = {
        "name": "kept",
        "storage": storage,
        "global_batch": 12,
        "data": {"train": data.uri, "chunk_size": 4, "chunks_per_block": 4},
        "model": {
            "embed_dim": 16,
            "image": {"size": 16, "patch": 8, "width": 32, "layers": 2, "heads": 2},
            "text": {"context": 12, "vocab": 600, "width": 32, "layers": 1, "heads": 2},
        },
        "optim": {"peak_lr": 2e-3, "schedule": {"warmup_steps": 2}, "eps": 1e-6},
        "length": {"samples_seen": 12 * STEPS},
        "checkpoint": {"every_steps": 10, "keep_last": 1},
        "tracking": {"tensorboard": False},
        "log_every_steps": 1,
    }
    return validated(RunConfig, tree)


class Refusing:
    """Hears a run's events, refuses to take what it writes from time to time, and looks at what is there meanwhile."""

    def __init__(self, checkpoints: Checkpoints, refuse: Callable[[int | None], None]) -> None:
        self._checkpoints, self._refuse = checkpoints, refuse
        self._phase, self._until = -1, 0
        self.heard: list[RunEvent] = []
        self.whole: list[int] = []
        """Steps of the newest checkpoint after each time, every hash of it verified."""

    def on_event(self, event: RunEvent) -> None:
        self.heard.append(event)
        if self._until and isinstance(event, Metrics):
            self._go_on(event.record.step)
        elif not self._until and isinstance(event, Checkpointed) and self._phase + 1 < len(REFUSED):
            begin, end = REFUSED[self._phase + 1]
            if event.step >= begin:
                self._phase, self._until = self._phase + 1, end
                self._refuse(self._phase)

    def _go_on(self, step: int) -> None:
        if step < self._until:
            self._refuse(self._phase)  # again: a temporary file that is gone has made room
            return
        self._look()
        self._refuse(None)
        self._until = 0

    def _look(self) -> None:
        newest = self._checkpoints.newest()
        assert newest is not None
        assert len(list(self._checkpoints.parts(newest, newest.files))) == 2
        self.whole.append(newest.step)

    def check(self, reasons: tuple[str, str]) -> None:
        """Each time it was said why, once; nothing restarted; what was saved last before stayed; the end was saved."""
        assert not [event for event in self.heard if isinstance(event, Restarting)]
        saved = [event.step for event in self.heard if isinstance(event, Checkpointed)]
        for (begin, end), newest in zip(REFUSED, self.whole, strict=True):
            assert begin <= newest < end  # events take half a second: another one may have been saved before
        assert saved[-1] == STEPS
        warnings = [event.text for event in self.heard if isinstance(event, Warned)]
        for reason in reasons:
            assert len([text for text in warnings if "could not be saved (" in text and reason in text]) == 1, warnings
            assert len([text for text in warnings if reason in text and "could not be saved" not in text]) == 1, (
                warnings
            )


def check_finished(config: RunConfig, version: str, run: Store) -> None:
    """Registered from the last step, without a gap in what was recorded."""
    assert Registry(config.registry_uri).load(version)[1].bundle.lineage.step == STEPS
    assert [record["step"] for record in read_metrics(run)] == list(range(1, STEPS + 1))
    assert not Checkpoints(run).leftovers()


def test_a_bucket_that_is_read_only_and_then_full_costs_no_step(
    make_shards: MakeShards, s3_bucket: str, s3_server: str
) -> None:
    data = make_shards(40)
    with faulty_store(s3_server) as store, session(num_cpus=5):
        store.every = 0
        storage = s3_bucket.replace(s3_server, store.uri)

        def refuse(phase: int | None) -> None:
            store.refusal = None if phase is None else (READ_ONLY, FULL)[phase]

        config = config_of(data, storage)
        refusing = Refusing(Checkpoints(open_store(storage) / "kept"), refuse)
        version = train(config, say=quiet, on_event=refusing.on_event).version
        check_finished(config, str(version), open_store(storage) / "kept")
    refusing.check(("refuses access (AccessDenied)", "is full (QuotaExceeded)"))


@pytest.mark.slow
def test_a_disk_that_is_read_only_and_then_full_costs_no_step(make_shards: MakeShards, tmp_path: Path) -> None:
    """A file system in memory, seen by the run alone; temporary files and Ray's own are elsewhere."""
    storage = tmp_path / "disk"
    storage.mkdir()
    alone = ["unshare", "--user", "--map-root-user", "--mount"]
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "raylens-test", str(storage)]
    if shutil.which("unshare") is None or subprocess.run([*alone, *mount], check=False, capture_output=True).returncode:
        pytest.skip("this machine gives nobody a file system of their own (unshare --user --mount)")
    path = tmp_path / "run.yaml"
    path.write_text(dump_yaml(config_of(make_shards(40), str(storage))))
    script = f"{' '.join(mount)} && exec {sys.executable} {DRIVER} {path}"
    done = subprocess.run(
        [*alone, "sh", "-c", script],
        check=False,
        capture_output=True,
        text=True,
        timeout=400,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(autouse=True)
def _credentials(s3_environment: None) -> None:
    """Before Ray's processes begin."""
