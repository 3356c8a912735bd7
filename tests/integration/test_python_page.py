"""The program of `docs/python.md`, run as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

from raylens.storage import open_store
from raylens.train import RunFiles

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


def program() -> str:
    return "".join(re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE))


def test_the_page_runs_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "tour.py").write_text(program())
    run = subprocess.run([sys.executable, "tour.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "stopped: its state is saved" in run.stdout
    resumed = re.search(r"^tour@1: (\d+) steps, resumed at step (\d+)$", run.stdout, re.MULTILINE)
    assert resumed is not None
    assert 0 < int(resumed[2]) < int(resumed[1])
    difference = re.search(r"served as offline to (\S+)$", run.stdout)
    assert difference is not None
    assert float(difference[1]) < 1e-5
    assert "zero-shot accuracy" in run.stdout
    assert "best: {" in run.stdout
    assert RunFiles.read(open_store(str(tmp_path / "tour" / "runs" / "tour"))).state == "finished"
