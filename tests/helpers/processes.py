"""What the processes of a run are, and which of them load torch, looked at from outside while it runs."""

import contextlib
import threading
from types import TracebackType
from typing import Self

import psutil

LOOK_SECONDS = 0.2
TORCH = "libtorch_python"
"""In the path of the library that every process maps which has imported torch."""

__all__ = ["TorchWatch"]


class TorchWatch:
    """Inside, looks at the processes below this one, by the class of the actor that each is."""

    def __init__(self) -> None:
        self._before = {process.pid for process in _processes() if _has_torch(process)}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="torch-watch", daemon=True)
        self.seen: set[str] = set()
        """Classes of actors that there were."""
        self.loaded: set[str] = set()
        """Those of them that loaded torch; a process that had it before, from an earlier task, does not count."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        last = False
        while not last:
            last = self._done.wait(LOOK_SECONDS)
            for process in _processes():
                with contextlib.suppress(psutil.Error):  # it ended meanwhile
                    self._look(process)

    def _look(self, process: psutil.Process) -> None:
        title = " ".join(process.cmdline())
        if not title.startswith("ray::"):
            return
        name = title.removeprefix("ray::").split(".")[0].split("(")[0].strip()
        self.seen.add(name)
        if process.pid not in self._before and _has_torch(process):
            self.loaded.add(name)


def _processes() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _has_torch(process: psutil.Process) -> bool:
    try:
        return any(TORCH in found.path for found in process.memory_maps())
    except psutil.Error:
        return False
