"""Help comes at once: what commands do is imported when they do it."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from raylens.workloads.cli import app

LATER = {"ray", "torch", "numpy", "pyarrow", "pydantic", "yaml", "raylens.config", "raylens.storage"}


def test_the_command_line_imports_nothing_of_what_its_commands_do() -> None:
    program = f"import sys, raylens.workloads.cli; print(*({LATER} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("typed", "present"), [("clusters list", "contexts"), ("budget vit_b32", "estimate"), ("contxts", "contexts")]
)
def test_an_unknown_command_is_answered_with_the_one_that_was_meant(typed: str, present: str) -> None:
    result = CliRunner().invoke(app, typed.split())
    assert result.exit_code == 2
    assert f"No such command {typed.split()[0]!r}" in result.output
    assert f"{present!r}" in result.output
