"""One way in one job: what is measured in a round, and what of memory."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.jobs import Job
from benchmarks.peer import Peer
from benchmarks.results import Cell
from benchmarks.workers import PeerError, Publisher, Reader

__all__ = ["Entry", "Unit"]

_READERS: Final = 2  # that have the object at once when memory is measured
_BLOCK: Final = 256 << 20  # bytes
_STEADY: Final = 50  # more openings, of what does not take long
_ANEW: Final = 50  # openings after it was let go
_PAUSE: Final = 0.5  # seconds in which a pool makes ready what was freed
_SENT: Final = 1 << 16  # bytes of a message from which on its way through the pipe counts


class Unit:
    """A copy of so many bytes into memory that exists: what publishing is measured in.

    Of many bytes it is a block, which no cache has room for, copied as often: an object of gigabytes, its
    region and twice as much for the unit would not fit into memory that has room for the first two.
    """

    def __init__(self, nbytes: int) -> None:
        self._source = np.ones(max(min(nbytes, _BLOCK) // 8, 1))
        self._target = self._source.copy()
        self._times = max(nbytes / _BLOCK, 1)

    def measure(self) -> float:
        """Return the seconds of a copy now."""
        copies = int(self._times)
        start = time.perf_counter()
        for _ in range(copies):
            np.copyto(self._target, self._source)
        return (time.perf_counter() - start) * self._times / copies


class Entry:
    """One way in one job, from its first round to its last."""

    def __init__(
        self, peer: Peer, job: Job, folders: tuple[Path, Path], scale: float, patience: float
    ) -> None:
        self.peer, self.job, self.cell = peer, job, Cell()
        self._data, self._servers = folders
        self._scale, self._patience = scale, patience
        self._stack = ExitStack()
        self._address = ""
        self._publisher: Publisher | None = None
        self._readers: list[Reader] = []  # of the first rounds, which are the readers when memory is measured
        self._expected: tuple[int, float, float] = (0, 0.0, 0.0)
        self.spent = 0.0  # seconds so far

    def begin(self) -> None:
        """Start the server, if there is one, and the process that publishes."""
        with self._failing():
            folder = self._servers / f"{len(os.listdir(self._servers))}"
            folder.mkdir()
            self._address = self._stack.enter_context(self.peer.serve(folder))
            self._start()

    def _start(self) -> Publisher:
        self._publisher = Publisher(
            self.peer.name, self.job.name, self._address, self._patience, self._scale, self._data
        )
        self._publisher.ready()
        if not self._expected[0]:
            self._expected = self._publisher.call("expected")
        return self._publisher

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Note why this way failed, and go on; count the time."""
        start = time.monotonic()
        try:
            yield
        except Exception as error:
            self.cell.failed = self.cell.failed or str(error) or type(error).__name__
            print(f"  {self.peer.name}, {self.job.name}: {self.cell.failed}", file=sys.stderr)
        finally:
            self.spent += time.monotonic() - start

    @property
    def payload(self) -> int:
        """The bytes of the values; 0 if it could not be built."""
        return self._expected[0]

    def round(self, number: int, unit: Unit) -> None:
        """Publish twice, and open in a new process."""
        if self.cell.failed:
            return
        with self._failing():
            publisher = self._publisher
            if publisher is None:
                publisher = self._start()
            seconds = unit.measure()
            first = publisher.publish()
            if number == 0 or not self.peer.is_served:
                self.cell.add("first", first)
                self.cell.add("first unit", seconds)
            publisher.call("release")
            if self.peer.is_fresh:
                time.sleep(_PAUSE)
            seconds = unit.measure()
            self.cell.add("again", publisher.publish())
            self.cell.add("unit", seconds)
            self._read(publisher)
            publisher.call("release")
            if self.peer.is_fresh:
                self._end()

    def _read(self, publisher: Publisher) -> None:
        reader, add = self._reader(publisher), self.cell.add
        messages = publisher.call("messages", 1 + _STEADY + _ANEW)
        sent = reader.take(messages)
        add("bytes", len(messages[0]))
        seconds = self._open(reader)
        by_pipe = sent if len(messages[0]) > _SENT else 0.0
        add("open", seconds + by_pipe)
        is_quick = seconds < 0.02
        add("steady", by_pipe + reader.call("again", _STEADY if is_quick else 2))
        if self.job.look_up is not None:
            add("lookup", reader.call("look_up"))
        add("scan", self._scan(reader))
        add("anew", by_pipe + reader.call("anew", _ANEW if is_quick else 2))
        reader.call("drop")
        if len(self._readers) > _READERS:
            self._readers.pop().stop()

    def _reader(self, publisher: Publisher) -> Reader:
        """Start one more."""
        reader = Reader(self.peer.name, self.job.name, self._address, self._patience)
        self._readers.append(reader)
        reader.ready()
        self.cell.add("cold", reader.call("tiny", publisher.call("tiny")))
        return reader

    def _open(self, reader: Reader) -> float:
        seconds, value = reader.call("open")
        if not np.isclose(value, self._expected[1], rtol=1e-9):
            raise PeerError(f"a reader found {value} where {self._expected[1]} was written")
        return float(seconds)

    def _scan(self, reader: Reader) -> float:
        seconds, value = reader.call("scan")
        if not np.isclose(value, self._expected[2], rtol=1e-9):
            raise PeerError(f"a reader found a sum of {value} where {self._expected[2]} was written")
        return float(seconds)

    def memory(self, count: int = _READERS) -> None:
        """Measure what publishing takes at its peak, and what each of so many readers takes."""
        if self.cell.failed:
            return
        with self._failing():
            publisher = self._publisher or self._start()
            self.cell.add("peak", publisher.peak_of_publishing())
            while len(self._readers) < count:
                self._reader(publisher)
            readers = self._readers[:count]
            messages = [publisher.call("messages", 1) for _ in readers]
            for reader, message in zip(readers, messages, strict=True):
                sent = reader.take(message)
                seconds = self._open(reader)
                self.cell.add("open by many", seconds + (sent if len(message[0]) > _SENT else 0))
            self._keep("opened", readers)
            for reader in readers:
                self._scan(reader)
            self._keep("read", readers)
            for reader in readers:
                reader.call("drop")
            publisher.call("release")

    def _keep(self, when: str, readers: list[Reader]) -> None:
        for reader in readers:
            for kind, nbytes in reader.call("taken")._asdict().items():
                self.cell.add(f"{kind} {when}", nbytes)

    def _end(self) -> None:
        if self._publisher is None:
            return
        publisher, self._publisher = self._publisher, None
        try:
            publisher.call("finish")
        finally:
            publisher.stop()

    def end(self) -> None:
        """End the processes and the server."""
        while self._readers:
            self._readers.pop().stop()
        with self._failing():
            self._end()
        with self._failing():
            self._stack.close()
