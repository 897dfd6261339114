"""The mapped side: another process that opens a name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import mori
from tests.worker import Worker


@pytest.fixture
def there(worker: Worker) -> Callable[[Callable[[Any], Any], object], Any]:
    """Return a function that calls one on what a shared object's name opens in another process."""

    def call(function: Callable[[Any], Any], shared: object) -> Any:
        name = mori.shared_name(shared)
        assert name is not None
        return worker(lambda name: function(mori.map_shared(name)), name)

    return call
