"""A run on a disk that it has to itself: `_unwritable_driver.py CONFIG.yaml`, as root of a namespace of its own."""

import errno
import subprocess
import sys
import time
from pathlib import Path

from raylens.cluster import session
from raylens.config import RunConfig, load_yaml, validated
from raylens.messages import quiet
from raylens.storage import open_store
from raylens.train import train
from raylens.train.checkpoint.store import Checkpoints
from tests.integration.test_unwritable import Refusing, check_finished


class Disk:
    """Read-only in the first phase, full in the second, as it was in between."""

    def __init__(self, root: Path) -> None:
        self._root, self._ballast, self._read_only = root, root / "ballast", False

    def refuse(self, phase: int | None) -> None:
        if phase == 1:
            self._fill()
        elif self._read_only != (phase == 0):
            self._read_only = phase == 0
            self._remount("ro" if self._read_only else "rw")
        elif phase is None:
            self._ballast.unlink()

    def _fill(self) -> None:
        with self._ballast.open("ab", buffering=0) as sink:
            for size in (1 << 20, 1 << 12, 1):
                try:
                    while True:
                        sink.write(bytes(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def _remount(self, mode: str) -> None:
        command = ["mount", "-o", f"remount,{mode}", str(self._root)]
        while subprocess.run(command, check=False, capture_output=True).returncode:
            time.sleep(0.01)  # while a file is being written


def main() -> None:
    path = Path(sys.argv[1])
    config = validated(RunConfig, load_yaml(path.read_text(), str(path)))
    run, disk = open_store(config.storage) / config.name, Disk(Path(config.storage))
    with session(num_cpus=5):
        refusing = Refusing(Checkpoints(run), disk.refuse)
        version = train(config, say=quiet, on_event=refusing.on_event).version
        check_finished(config, str(version), run)
    refusing.check(("Read-only file system", "No space left on device"))


if __name__ == "__main__":
    main()
