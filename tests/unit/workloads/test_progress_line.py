"""The line that a person follows a run by."""

from dataclasses import asdict, replace

from raylens.train.loop.metrics import StepMetrics
from raylens.train.loop.stats import TowerStats
from raylens.workloads.pages.terminal import progress_line, time_left

RECORD = StepMetrics(
    step=100, samples_seen=3_276_800, loss=4.5678, logit_scale=14.26, grad_norm=1.0, lr=1e-3,
    samples_per_second=16_384.0, substituted=0, truncated=0, skipped=0, data_wait=0.031, data_cores=1.52,
    bound="device", first_batch_seconds=None, sample_hashes=(), **asdict(TowerStats()),
)  # fmt: skip


def test_what_is_known_is_in_it() -> None:
    assert progress_line(RECORD) == (
        "loss 4.568  scale 14.3  16,384 pairs/s  device-bound: 3% data wait, 1.5 data cores"
    )
    more = replace(RECORD, epoch=0.256, mfu=0.413, memory_bytes=61 * 2**30, skipped=1200, substituted=3, truncated=9)
    assert progress_line(more) == (
        "epoch 0.26  loss 4.568  scale 14.3  16,384 pairs/s  MFU 41%  device-bound: 3% data wait, 1.5 data cores  "
        "61.0 GiB per worker  3 bad samples replaced (see quarantine/)  9 captions cut at the context  "
        "1,200 steps skipped"
    )


def test_what_is_left_goes_by_the_speed() -> None:
    assert time_left(RECORD, 1900) == "1 h 0 min left"  # 1,800 steps of 32,768 pairs, two seconds each
    assert time_left(RECORD, 100) == ""
    assert time_left(replace(RECORD, samples_per_second=0.0), 200) == ""
