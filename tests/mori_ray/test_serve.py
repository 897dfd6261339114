"""Ray Serve: requests bring references to a deployment, and what it is made with is put, or goes by value."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import ray

import mori
from tests.mori_ray.conftest import connect, wait_until
from tests.mori_ray.test_lifetime import is_gone

serve = pytest.importorskip("ray.serve", reason="ray[serve] is missing", exc_type=ImportError)

pytestmark = [
    pytest.mark.timeout(180),  # Serve takes its time to start
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),  # Serve's own
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ROWS = 100_000
SUM = float(np.arange(ROWS).sum())


class Tables:
    """Has tables of its own, and looks at those of requests."""

    def __init__(self, bound: Any, put: ray.ObjectRef) -> None:
        self.bound, self.put = bound, ray.get(put)

    def own(self) -> list[tuple[str | None, float]]:
        return [_seen(self.bound), _seen(self.put)]

    def look(self, x: Any) -> tuple[str | None, float]:
        return _seen(x)

    async def look_on_a_loop(self, x: Any) -> tuple[str | None, float]:
        return _seen(x)

    def back(self, x: Any) -> Any:
        return x


def _seen(x: Any) -> tuple[str | None, float]:
    return mori.shared_name(x), float(x[0].sum())


def shared() -> Any:
    return mori.share([np.arange(ROWS), "two"])


@pytest.fixture
def ended(no_ray: None) -> Iterator[None]:
    connect()
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    serve.start(proxy_location="Disabled", logging_config={"log_level": "ERROR"})
    yield
    serve.shutdown()


def test_a_deployment_gets_references_in_requests_and_bytes_or_what_is_put_where_it_is_made(
    ended: None,
) -> None:
    x, bound, put = shared(), shared(), shared()
    name, put_name = mori.shared_name(x), mori.shared_name(put)
    made = serve.deployment(Tables).options(ray_actor_options={"num_cpus": 0.1})
    handle = serve.run(made.bind(bound, ray.put(put)), route_prefix=None)
    del bound, put
    assert handle.own.remote().result(timeout_s=30) == [(None, SUM), (put_name, SUM)]
    for look in (handle.look, handle.look_on_a_loop):
        for argument in (x, ray.put(x)):
            assert look.remote(argument).result(timeout_s=30) == (name, SUM)
    back = handle.back.remote(x).result(timeout_s=30)
    assert float(back[0].sum()) == SUM
    del x, back, argument
    wait_until(lambda: name is not None and is_gone(name))
