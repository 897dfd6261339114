"""Writing in parallel: the bytes of a new region go to its files, in order, by a thread for each file.

The kernel allocates the pages of a file under one lock, and that, not copying, is
what writing to shared memory costs; so a large region stands in several files, written side by side.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from mori import _progress
from mori.memory.mmap import huge_pages
from mori.store.base import Draft, Header

__all__ = ["Sink", "write_in_order", "write_segments"]

_MOST: Final = 1 << 24  # of one system call, so that a failure elsewhere is soon noticed
_TEMPORARIES: Final = 4  # that wait to be written: a MB each, as a rule
_HEAD: Final = 64
_PER_THREAD: Final = 1 << 24  # bytes that one thread copies


class Sink(Protocol):
    """Takes the next bytes of a region."""

    def __call__(self, data: Any, *, borrowed: bool = False) -> None:
        """Write them, or see to it. What is `borrowed` costs no memory while it waits."""


def write_segments(write: Callable[[Header, Sink], object], draft: Draft, header: Header) -> None:
    """Write a region's bytes to the files of its draft, or to their pages where it has these.

    Parameters
    ----------
    write : callable
        Gets the header and a sink, and gives that all of the bytes, in order.

    Raises
    ------
    OSError
        The first that a file gave, from here or from the sink.
    """
    fds = draft.held.fds
    if draft.memory is not None:
        _write_pages(write, header, draft.memory, len(fds))
        return
    if draft.is_huge:
        with huge_pages(fds[0], header.nbytes) as memory:
            _write_pages(write, header, memory, len(fds))
        return
    if len(fds) == 1:
        write(header, _InOrder(fds[0]))
        return
    segments = _SegmentWriter(fds, draft.segment_nbytes)
    try:
        segments.start()
        write(header, segments)
    except BaseException as error:
        segments.stop(error)
        raise
    finally:
        segments.join()
    if segments.error is not None:
        raise segments.error


def write_in_order(fd: int, write: Callable[[Sink], object]) -> None:
    """Write the bytes that `write` gives a sink to one file."""
    write(_InOrder(fd))


def _write_pages(
    write: Callable[[Header, Sink], object], header: Header, memory: npt.NDArray[np.uint8], threads: int
) -> None:
    copying = _Copying(memory, threads)
    write(header, copying)
    copying.finish()


def _write(fd: int, view: memoryview, position: int, meter: _progress.Meter | None) -> int:
    written = os.pwrite(fd, view[:_MOST], position)
    if meter is not None:
        meter.did(written)
    return written


class _InOrder:
    """Writes to one file, in this thread."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._position = 0
        self._meter = _progress.meter()

    def __call__(self, data: Any, *, borrowed: bool = False) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view[:_MOST], self._position)
            if self._meter is not None:
                self._meter.did(written)
            self._position += written
            view = view[written:]


class _Copying:
    """Copies into pages that are there already. The head, which makes them a region, comes last."""

    def __init__(self, memory: npt.NDArray[np.uint8], threads: int) -> None:
        self._memory = memory
        self._threads = threads
        self._position = 0
        self._head = b""

    def __call__(self, data: Any, *, borrowed: bool = False) -> None:
        given = np.frombuffer(data, np.uint8)
        missing = _HEAD - len(self._head)
        self._head += given[:missing].tobytes()
        start = self._position
        self._position += given.nbytes
        _copy(self._memory[max(start, _HEAD) : self._position], given[missing:], self._threads)
        if (meter := _progress.meter()) is not None:
            meter.did(given.nbytes)

    def finish(self) -> None:
        self._memory[:_HEAD] = np.frombuffer(self._head, np.uint8)


def _copy(target: npt.NDArray[np.uint8], source: npt.NDArray[np.uint8], most: int) -> None:
    """Copy bytes, by several threads if there are many; none of them copies any more when this ends."""
    count = max(min(most, source.nbytes // _PER_THREAD), 1)
    bounds = [source.nbytes * number // count for number in range(count + 1)]
    pieces = [_Piece(target[start:stop], source[start:stop]) for start, stop in itertools.pairwise(bounds)]
    given: list[_Piece] = []
    try:
        for piece in pieces[1:]:
            given.append(piece)  # before: its thread may be there when an interrupt ends this
            try:
                threading.Thread(target=piece.copy, name="mori-copying", daemon=True).start()
            except RuntimeError:  # no thread can be started any more
                given.pop()
                piece.copy()
        pieces[0].copy()
        for piece in pieces:
            piece.wait()
    except BaseException:  # a signal's: what the threads write to may be unmapped soon
        while given:
            with contextlib.suppress(BaseException):  # one more
                given[-1].cancel()
                given.pop()
        raise


class _Piece:
    """Bytes that a thread is to copy, unless that is cancelled before it begins."""

    def __init__(self, target: npt.NDArray[np.uint8], source: npt.NDArray[np.uint8]) -> None:
        self._target, self._source = target, source
        self._is_begun = self._is_cancelled = self._is_copied = False
        self._end = threading.Event()

    def copy(self) -> None:
        """Copy them."""
        try:
            self._is_begun = True  # before it is looked whether this is still wanted
            if not self._is_cancelled:
                self._target[:] = self._source
                self._is_copied = True
        finally:
            self._end.set()

    def wait(self) -> None:
        """Wait until they are copied."""
        self._end.wait()
        if not self._is_copied:
            raise RuntimeError("a thread that was to copy a part of a region has failed")

    def cancel(self) -> None:
        """Stop the copying: no thread copies, or begins to."""
        self._is_cancelled = True
        if self._is_begun:
            self._end.wait()


class _SegmentWriter:
    """Passes bytes to the threads of the files that they belong to."""

    def __init__(self, fds: Sequence[int], segment_nbytes: int) -> None:
        self.error: BaseException | None = None
        self._segment_nbytes = segment_nbytes
        self._position = 0
        self._room = threading.Semaphore(_TEMPORARIES)
        self._queues = [queue.SimpleQueue[tuple[memoryview, int, bool] | None]() for _ in fds]
        # A thread's end each: `Thread.join` of before Python 3.13, once interrupted, takes it for ended.
        self._ends: list[threading.Event] = []
        self._fds = fds
        self._meter = _progress.meter()

    def start(self) -> None:
        """Start the threads."""
        for fd, pieces in zip(self._fds, self._queues, strict=True):
            # A descriptor of its own: who is interrupted twice does not wait, and closes the others.
            own, end = os.dup(fd), threading.Event()
            thread = threading.Thread(
                target=self._run, args=(own, pieces, end), name="mori-writing", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # no thread can be started any more: what is given is written at once
                os.close(own)
                break
            self._ends.append(end)

    def __call__(self, data: Any, *, borrowed: bool = False) -> None:
        view = memoryview(data)
        while view:
            if self.error is not None:
                raise self.error
            lane, offset = divmod(self._position, self._segment_nbytes)
            piece = view[: self._segment_nbytes - offset]
            view = view[len(piece) :]
            self._position += len(piece)
            if lane >= len(self._ends):
                self._put(self._fds[lane], piece, offset)
                continue
            if not borrowed:
                self._room.acquire()
            self._queues[lane].put((piece, offset, borrowed))

    def stop(self, error: BaseException) -> None:
        """Stop writing."""
        self.error = self.error or error

    def join(self) -> None:
        """Wait until all is written, or nothing more will be."""
        for pieces in self._queues:
            pieces.put(None)
        try:
            self._wait()
        except BaseException as error:  # a signal's
            self.stop(error)
            self._wait()
            raise

    def _wait(self) -> None:
        for end in self._ends:
            end.wait()

    def _run(
        self, fd: int, pieces: queue.SimpleQueue[tuple[memoryview, int, bool] | None], end: threading.Event
    ) -> None:
        try:
            while (taken := pieces.get()) is not None:
                piece, offset, borrowed = taken
                try:
                    self._put(fd, piece, offset)
                except BaseException as error:
                    self.stop(error)
                finally:
                    del taken, piece
                    if not borrowed:
                        self._room.release()
        finally:
            os.close(fd)
            end.set()

    def _put(self, fd: int, piece: memoryview, offset: int) -> None:
        while piece and self.error is None:
            written = _write(fd, piece, offset, self._meter)
            offset += written
            piece = piece[written:]
