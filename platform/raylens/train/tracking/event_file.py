"""An event file of TensorBoard, written synchronously in whole records.

tensorboardX's own writer is not used: a full disk ends its thread, and adding to its queue then blocks forever.
"""

import errno
import socket
import struct
import time
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import HistogramProto, Summary
from tensorboardX.record_writer import masked_crc32c

from raylens.train.tracking.sink import Point

__all__ = ["EventFile"]

VERSION = "brain.Event:2"


class EventFile:
    """A new file in a folder, which is created if it is missing.

    Raises:
        OSError: the file cannot be written. It then holds whole records only, and writing can be tried again.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        """Create the file; ``purge_step`` hides what earlier files have for this step and later ones."""
        folder.mkdir(parents=True, exist_ok=True)
        now = time.time_ns()
        # Readers take files in the order of their names; a name with seconds alone, as is usual, might not be unique.
        self.path = folder / f"events.out.tfevents.{now // 10**9:010d}.{socket.gethostname()}.{now}"
        self.size = 0
        """Size of the file in bytes."""
        events = [Event(wall_time=time.time(), file_version=VERSION)]
        if purge_step is not None:
            session = SessionLog(status=SessionLog.START)
            events.append(Event(wall_time=time.time(), step=purge_step, session_log=session))
        try:
            self._append(b"".join(map(_framed, events)))
        except OSError:
            self.path.unlink(missing_ok=True)  # otherwise a full disk would collect an empty file for each attempt
            raise

    def add(self, point: Point) -> None:
        """Append all values of a step as one record."""
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in point.scalars.items()]
        values += [Summary.Value(tag=tag, histo=_histogram(counts)) for tag, counts in point.histograms.items()]
        self._append(_framed(Event(wall_time=time.time(), step=point.step, summary=Summary(value=values))))

    def _append(self, data: bytes) -> None:
        with self.path.open("ab", buffering=0) as stream:
            try:
                if stream.write(data) != len(data):
                    raise OSError(errno.ENOSPC, "not enough space for a whole record", str(self.path))
            except OSError:
                stream.truncate(self.size)  # readers stop forever at an incomplete record
                raise
        self.size += len(data)


def _framed(event: Event) -> bytes:
    data: bytes = event.SerializeToString()
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))


def _histogram(counts: tuple[float, ...]) -> HistogramProto:
    """Return the histogram from the first non-empty bin to the last; sums take values to be in the middle of bins."""
    width = 2.0 / len(counts)
    held = [place for place, count in enumerate(counts) if count]
    places = range(held[0], held[-1] + 1)
    middles = [width * (place + 0.5) - 1.0 for place in places]
    kept = [counts[place] for place in places]
    return HistogramProto(
        min=width * places[0] - 1.0,
        max=width * (places[-1] + 1) - 1.0,
        num=sum(kept),
        sum=sum(count * middle for count, middle in zip(kept, middles, strict=True)),
        sum_squares=sum(count * middle**2 for count, middle in zip(kept, middles, strict=True)),
        bucket_limit=[width * (place + 1) - 1.0 for place in places],
        bucket=kept,
    )
