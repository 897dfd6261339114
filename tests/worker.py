"""A process that does what tests ask of it."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import pickle
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle

from mori.memory import lease

__all__ = ["Worker", "settings"]

_LIMIT = 40  # seconds


def settings() -> dict[str, str]:
    """Return what is set of mori in this process."""
    return {name: value for name, value in os.environ.items() if name.startswith("MORI_")}


class Worker:
    """Another process: calling it calls a function there and returns what that returned.

    Functions may be lambdas of a test; arguments and answers are pickled. It is used by many tests,
    so it takes over this process's settings with every call.
    """

    def __init__(self, method: str) -> None:
        context: Any = multiprocessing.get_context(method)
        self.method = method
        self.is_ended = self._was_called = False
        self._ours, theirs = context.Pipe()
        inherited = self._ours if method == "fork" else None
        self.process = context.Process(target=_serve, args=(theirs, inherited), daemon=True)
        self.process.start()
        theirs.close()
        self._ours.send("hello")

    def __call__(self, function: Callable[..., Any], *args: Any) -> Any:
        return self.call_pickled(cloudpickle.dumps((function, args), 5))

    def call_pickled(self, call: bytes) -> Any:
        """Send a call that is pickled already. A worker that does not answer in time is ended."""
        self._was_called = True
        self._ours.send(settings())
        self._ours.send_bytes(call)
        if not self._ours.poll(_LIMIT):
            self.kill()
            raise TimeoutError(f"no answer from the {self.method} worker within {_LIMIT} s")
        fault, answer = pickle.loads(self._ours.recv_bytes())
        if fault is not None:
            raise fault
        return answer

    def expire_graces(self, *, collect: bool) -> None:
        """Have it give back what only a grace still holds, or a reference cycle, if a test has called it."""
        if self._was_called and not self.is_ended:
            self(_expire_graces, collect)
            self._was_called = collect is False

    def close(self) -> None:
        """Let it end."""
        if not self.is_ended:
            self._ours.send(None)
            self._end()

    def kill(self) -> None:
        """End it in the middle of whatever it does."""
        self.process.kill()
        self._end()

    def _end(self) -> None:
        self.is_ended = True
        self._ours.close()
        self.process.join(_LIMIT)
        self.process.close()


def _serve(connection: Connection, inherited: Connection | None) -> None:
    if inherited is not None:  # else this process would keep itself waiting when the tests are killed
        inherited.close()
    with contextlib.suppress(EOFError):
        _serve_calls(connection)


def _serve_calls(connection: Connection) -> None:
    connection.recv()
    while (news := connection.recv()) is not None:
        for name in settings():
            del os.environ[name]
        os.environ.update(news)
        _answer(connection)


def _expire_graces(collect: bool) -> None:
    if collect:
        gc.collect()
    lease.expire_graces()


def _answer(connection: Connection) -> None:
    try:
        function, args = cloudpickle.loads(connection.recv_bytes())
        answer = cloudpickle.dumps((None, function(*args)), 5)
    except Exception as error:
        answer = cloudpickle.dumps((error, None), 5)
    connection.send_bytes(answer)
