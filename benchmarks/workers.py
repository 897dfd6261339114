"""The processes that publish and that open, and the runner's end of the pipe to each."""

from __future__ import annotations

import gc
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.jobs import JOBS
from benchmarks.memory import Taken, private_bytes, settle, taken
from benchmarks.peers import PEERS

__all__ = ["PeerError", "Publisher", "Reader"]

_LOOKUPS: Final = 1000
_CONTEXT: Final = multiprocessing.get_context("spawn")


class PeerError(Exception):
    """A way failed, died or took too long; the run goes on without it."""


def _serve(pipe: Connection, role: Callable[..., Any], *arguments: Any) -> None:
    """Answer calls of the methods of a role until the pipe closes."""
    try:
        desk = role(pipe, *arguments)
        pipe.send((True, None))
        while True:
            name, given = pipe.recv()
            pipe.send((True, getattr(desk, name)(*given)))
    except (EOFError, BrokenPipeError):
        return
    except BaseException as error:
        traceback.print_exc()
        with suppress(OSError):
            pipe.send((False, f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"[:200]))


class _Process:
    """A process with one role, started by spawn."""

    def __init__(self, role: Any, peer: str, job: str, address: str, patience: float, *more: Any) -> None:
        self._patience = patience
        self._pipe, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_serve, args=(theirs, role, peer, job, address, *more))
        with _environment(PEERS[peer].environment):
            self._process.start()
        theirs.close()

    def call(self, name: str, *given: Any) -> Any:
        """Call a method there."""
        self._ask(name, *given)
        return self._answer()

    def _ask(self, name: str, *given: Any) -> None:
        try:
            self._pipe.send((name, given))
        except OSError:
            raise PeerError(f"it ended (exit code {self._process.exitcode})") from None

    def _answer(self) -> Any:
        if not self._pipe.poll(self._patience):
            raise PeerError(f"it took longer than {self._patience:.0f} s")
        try:
            worked, found = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(self._patience)
            raise PeerError(f"it ended (exit code {self._process.exitcode})") from None
        if not worked:
            raise PeerError(found)
        return found

    def ready(self) -> None:
        """Wait until it has begun."""
        self._answer()

    def stop(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()


@contextmanager
def _environment(settings: Any) -> Any:
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class Publisher(_Process):
    """The runner's end of a process that has the object."""

    def __init__(
        self, peer: str, job: str, address: str, patience: float, scale: float, folder: Path
    ) -> None:
        super().__init__(_Publishing, peer, job, address, patience, scale, folder)

    def publish(self) -> float:
        """Return the seconds it took."""
        return float(self.call("publish"))

    def peak_of_publishing(self) -> int:
        """Publish and return the most private bytes above those before, looked at every millisecond."""
        before = self.call("settle")
        pid = self._process.pid
        assert pid is not None
        self._ask("publish")
        peak, limit = before, time.monotonic() + self._patience
        while not self._pipe.poll(0.001) and time.monotonic() < limit:
            with suppress(OSError, StopIteration):  # it has ended, and the answer says so
                peak = max(peak, private_bytes(pid))
        self._answer()
        return max(0, peak - int(before))


class _Publishing:
    def __init__(
        self, pipe: Connection, peer: str, job: str, address: str, scale: float, folder: Path
    ) -> None:
        self._peer, self._job = PEERS[peer], JOBS[job]
        self._peer.connect(address)
        self._folder, self._number = folder, 0
        self._tiny = self._publish(self._job.build(0))
        self._object = self._job.build(scale)
        self._published: list[Any] = []
        gc.collect()
        gc.freeze()

    def _publish(self, obj: Any) -> Any:
        self._number += 1
        return self._peer.publish(obj, self._folder / f"{os.getpid()}-{self._number}")

    def expected(self) -> tuple[int, float, float]:
        """Return the payload, and what a reader has to find."""
        job = self._job
        return job.payload(self._object), job.first(self._object), job.scan(self._object)

    def settle(self) -> int:
        settle()
        return private_bytes()

    def publish(self) -> float:
        gc.collect()
        start = time.perf_counter()
        published = self._publish(self._object)
        seconds = time.perf_counter() - start
        self._published.append(published)
        return seconds

    def release(self) -> None:
        self._published.pop().release()

    def messages(self, count: int) -> list[bytes]:
        count = count if self._peer.is_passed_once else 1
        return [self._published[-1].message() for _ in range(count)]

    def tiny(self) -> bytes:
        return bytes(self._tiny.message())

    def finish(self) -> None:
        while self._published:
            self.release()
        self._tiny.release()


class Reader(_Process):
    """The runner's end of a process that opens what was published."""

    def __init__(self, peer: str, job: str, address: str, patience: float) -> None:
        super().__init__(_Reading, peer, job, address, patience)

    def take(self, messages: list[bytes]) -> float:
        """Send the messages, and return the seconds until they are there."""
        start = time.perf_counter()
        try:
            for message in messages:
                self._ask("take")
                self._pipe.send_bytes(message)
                self._answer()
        except OSError:
            raise PeerError("the reader ended") from None
        return (time.perf_counter() - start) / len(messages)


class _Reading:
    def __init__(self, pipe: Connection, peer: str, job: str, address: str) -> None:
        self._pipe, self._peer, self._job = pipe, PEERS[peer], JOBS[job]
        self._peer.connect(address)
        self._messages: list[bytes] = []
        self._object: Any = None
        self._base = Taken(0, 0, 0)

    def tiny(self, message: bytes) -> float:
        """Open the smallest object, for what is imported late, and return the seconds."""
        start = time.perf_counter()
        tiny = self._peer.open(message)
        self._job.first(tiny)
        seconds = time.perf_counter() - start
        self._job.scan(tiny)
        return seconds

    def take(self) -> None:
        self._messages.append(self._pipe.recv_bytes())

    def open(self) -> tuple[float, float]:
        """Return the seconds from the reference to the first value, and the value."""
        settle()
        self._base = taken()
        self._object, seconds, value = self._open()
        return seconds, value

    def drop(self) -> None:
        """Let go of the object and the messages."""
        self._object = None
        self._messages.clear()
        gc.collect()

    def _open(self) -> tuple[Any, float, float]:
        message = self._messages[0] if len(self._messages) == 1 else self._messages.pop()
        start = time.perf_counter()
        found = self._peer.open(message)
        value = self._job.first(found)
        return found, time.perf_counter() - start, value

    def again(self, count: int) -> float:
        """Return the seconds of another opening, while the first one is held."""
        return median(self._open()[1] for _ in range(count))

    def anew(self, count: int) -> float:
        """Return the seconds of an opening while none is held: what a first one takes in a warm process."""
        self._object = None
        gc.collect()
        times = []
        for _ in range(count):
            self._peer.detach()
            times.append(self._open()[1])
        return median(times)

    def taken(self) -> Taken:
        settle()
        return taken().above(self._base)

    def scan(self) -> tuple[float, float]:
        """Return the seconds of a pass over all of it, and what it finds."""
        start = time.perf_counter()
        value = self._job.scan(self._object)
        return time.perf_counter() - start, value

    def look_up(self) -> float:
        """Return the seconds of one lookup."""
        assert self._job.look_up is not None
        self._job.look_up(self._object, _LOOKUPS)
        start = time.perf_counter()
        self._job.look_up(self._object, _LOOKUPS)
        return (time.perf_counter() - start) / min(_LOOKUPS, len(self._object))
