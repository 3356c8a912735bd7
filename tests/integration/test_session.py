"""A session imports what a command needs while Ray starts, and no module in two threads at the same time."""

import json
import subprocess
import sys

RECORDED = """
import json, sys, threading

found = []

class Recorder:
    def find_spec(self, name, path=None, target=None):
        found.append((threading.current_thread() is threading.main_thread(), name))

from raylens.cluster import session

sys.meta_path.insert(0, Recorder())
with session(num_cpus=4, meanwhile=["raylens.workloads.quickstart.quickstart"]):
    count = len(found)
    first = [in_main for in_main, _ in found].index(False)
    by_main = [name for in_main, name in found[first:count] if in_main and name in sys.modules]
    by_thread = {name for in_main, name in found[:count] if not in_main}
print(json.dumps([by_main, len(by_thread & sys.modules.keys())]))
"""


def test_what_is_imported_while_ray_starts_is_imported_by_one_thread() -> None:
    """Modules that import each other, as those of aiohttp do, would be seen half made by the other thread."""
    done = subprocess.run([sys.executable, "-c", RECORDED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    by_main, by_thread = json.loads(done.stdout)
    assert by_main == []
    assert by_thread > 1000  # Ray Train and Ray Serve among them
