"""Every kind of shared object as an argument of Ray: the type, the values, and what is on the wire."""

from __future__ import annotations

from typing import Any

import pytest
import ray

from tests.kinds import DATA, KINDS, is_equal, look, shared
from tests.mori_ray.tasks import Keeper, call

pytestmark = pytest.mark.usefixtures("one_node")

_ARGUMENT = 20_000  # bytes of an argument with references


@pytest.fixture(params=KINDS)
def name(request: pytest.FixtureRequest) -> str:
    if not KINDS[request.param].is_here():
        pytest.skip(f"{KINDS[request.param].library} is missing")
    return str(request.param)


def test_a_task_gets_what_was_shared(name: str, wire: list[int]) -> None:
    kind, x = KINDS[name], shared(name)
    seen = ray.get(call.remote(look, name, x))
    by_reference = not kind.by_value
    assert seen == (type(x).__name__, by_reference, True)
    assert max(wire) < _ARGUMENT if by_reference else max(wire) > DATA


def test_what_is_put_and_what_is_returned_is_equal(name: str) -> None:
    for ref in (ray.put(shared(name)), call.remote(shared, name)):
        assert is_equal(name, ray.get(ref))


@pytest.mark.parametrize(
    "name", ["a masked array", "a frame of a class", "an index", "a table"], indirect=True
)
def test_an_actor_keeps_and_passes_on_what_was_shared(name: str) -> None:
    keeper = Keeper.remote(shared(name))

    def pass_on(kept: Any) -> Any:
        return ray.get(call.options(num_cpus=0).remote(look, name, kept))

    assert ray.get(keeper.call.remote(pass_on))[1:] == (True, True)
