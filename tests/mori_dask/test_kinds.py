"""Every kind of shared object on the paths of Dask: the type, the values, and what is on the wire."""

from __future__ import annotations

from typing import Any

import distributed.protocol
import pytest
from distributed import Client

from tests.kinds import DATA, KINDS, is_equal, look, shared

_MESSAGE = 60_000  # bytes of everything that is sent meanwhile, where references are


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of each message that the client or the scheduler, which is in this process, makes."""
    seen: list[int] = []
    plain = distributed.protocol.dumps

    def counted(*args: Any, **kwargs: Any) -> Any:
        frames = plain(*args, **kwargs)
        seen.append(sum(memoryview(frame).nbytes for frame in frames))
        return frames

    counted._mori = True  # type: ignore[attr-defined]
    monkeypatch.setattr(distributed.protocol, "dumps", counted)
    return seen


@pytest.fixture(params=KINDS)
def name(request: pytest.FixtureRequest) -> str:
    if not KINDS[request.param].is_here():
        pytest.skip(f"{KINDS[request.param].library} is missing")
    return str(request.param)


def test_a_task_gets_what_was_shared(client: Client, name: str, wire: list[int]) -> None:
    kind, x = KINDS[name], shared(name)
    seen = client.submit(look, name, x).result()
    by_reference = not kind.by_value
    assert seen == (type(x).__name__, by_reference, True)
    assert sum(wire) < _MESSAGE if by_reference else sum(wire) > DATA


def test_a_result_goes_to_another_worker_and_comes_back(client: Client, name: str) -> None:
    here, there, *_ = client.nthreads()
    made = client.submit(shared, name, workers=[here], pure=False)
    seen = client.submit(look, name, made, workers=[there], pure=False).result()
    assert seen[1:] == (not KINDS[name].by_value, True)
    assert is_equal(name, made.result())


def test_what_is_scattered_is_what_was_shared(client: Client, name: str) -> None:
    x = shared(name)
    future = client.scatter(x, direct=True, hash=False)
    assert client.submit(look, name, future).result() == (type(x).__name__, not KINDS[name].by_value, True)
