"""Help comes at once: what commands do is imported when they do it."""

import subprocess
import sys

LATER = {"ray", "torch", "numpy", "pyarrow", "pydantic", "yaml", "raylens.config", "raylens.storage"}


def test_the_command_line_imports_nothing_of_what_its_commands_do() -> None:
    program = f"import sys, raylens.workloads.cli; print(*({LATER} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
