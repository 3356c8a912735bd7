"""How the test run is dealt into processes, and what it says of them."""

from pathlib import Path

import pytest

from tests import run
from tests.run import ROOT, Lane, lanes, report, status_of

FINE = """
import pytest
def test_fine(): pass
def test_skipped(): pytest.skip("there is none here")
@pytest.mark.slow
def test_long(): assert False
"""
WAITS = """
import pathlib, time
here = pathlib.Path(__file__).parent
def test_waits():
    (here / "began").touch()
    try:
        time.sleep(600)
    finally:
        (here / "over").touch()
"""


def test_every_file_of_tests_is_in_exactly_one_lane() -> None:
    dealt: list[str] = []
    for lane in lanes("slow"):
        left_out = {path.removeprefix("--ignore=") for path in lane.paths if path.startswith("--ignore=")}
        for path in map(ROOT.joinpath, lane.paths):
            found = [path] if path.is_file() else path.rglob("test_*.py")
            names = [str(file.relative_to(ROOT)) for file in found]
            if lane.name == "rest":  # pytest leaves the folder `nodes` out by itself
                names = [name for name in names if "/nodes/" not in name and "/gpu/" not in name]
            dealt += [name for name in names if name not in left_out]
    assert sorted(dealt) == sorted(str(file.relative_to(ROOT)) for file in (ROOT / "tests").rglob("test_*.py"))


def test_only_files_of_long_tests_are_left_out_of_the_quick_run() -> None:
    quick, slow = ({path for lane in lanes(target) for path in lane.paths} for target in ("test", "slow"))
    assert quick < slow
    assert all("mark.slow" in (ROOT / path).read_text() for path in slow - quick)


def test_one_failure_in_one_lane_fails_the_run_and_everything_is_summed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bodies = {
        "fine": FINE,
        "wrong": "def test_wrong(): raise ValueError('" + 200 * "word " + "the end')",
        "dies": "def test_dies(): import os; os._exit(0)",
    }
    for name, body in bodies.items():
        (tmp_path / f"test_{name}.py").write_text(body)
    todo = [Lane(name, [str(tmp_path / f"test_{name}.py")]) for name in bodies]
    run.run(todo, "test", 2, ["-o", "markers=slow"])
    report(todo, 12.0)
    *_, last = told = capsys.readouterr().out.splitlines()
    assert " 1 failed, 1 passed, 1 skipped, 1 deselected in 12.00s (0 min 12 s) " in last
    assert any("1 x Skipped: there is none here" in line for line in told)
    wrong, dies = [line.split("::")[-1] for line in told if line.startswith("FAILED ")][-2:]
    assert wrong.startswith("test_wrong - ValueError: word word")
    assert wrong.endswith("word the end")
    assert len(wrong) < 700
    assert dies == "FAILED lane dies: its process ended with 0; see what it printed"
    assert [lane.failed for lane in todo] == [False, True, True]
    assert [status_of(todo[:1]), status_of(todo)] == [0, 1]


def test_an_interrupt_ends_the_lanes_that_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "test_waits.py").write_text(WAITS)
    lane = Lane("waits", [str(tmp_path / "test_waits.py")])

    ended, interrupts = Lane.ended, iter([KeyboardInterrupt])

    def interrupted(self: Lane, folder: Path) -> bool:
        if (tmp_path / "began").exists():
            for interrupt in interrupts:
                raise interrupt
        return ended(self, folder)

    monkeypatch.setattr(Lane, "ended", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.run([lane], "test", 1, ["-o", "markers=slow"])
    assert lane.process is not None
    assert lane.process.poll() == 2
    assert (tmp_path / "over").exists()
    assert status_of([lane]) == 1
