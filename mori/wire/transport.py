"""Transports: how the pickle under way carries shared objects: by reference, by value, or as an adapter says.

The transport is a context variable, so it applies to what is pickled inside of what is pickled, too. Where
nobody has chosen one, it follows from who pickles.

An engine serializes by rules of its own, so its adapter has to choose before a shared object reaches the
engine: the adapter is imported as soon as both are there.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from mori._imports import imported, load
from mori.wire import destination

if TYPE_CHECKING:
    from mori.memory.lease import Lease
    from mori.memory.mapping import Mapping

__all__ = [
    "ADAPTERS",
    "LeasingTransport",
    "Transport",
    "TransportLike",
    "is_by_value",
    "is_set",
    "is_wanted",
    "load_adapters",
    "transport_var",
    "use_transport",
]


class Transport:
    """An adapter's transport: it decides for each region, and sees each reference.

    A region that it accepts is kept alive by the adapter until the reference has arrived: there is no grace.
    """

    __slots__ = ()

    is_by_value: ClassVar[bool] = False
    """Whether it accepts no region at all, as ``"value"`` does, and only wants to see what is asked for."""

    def accepts(self, region: Mapping) -> bool:
        """Return whether parts of a region go by reference; by value if not."""
        return True

    def reduce(self, reference: bytes) -> tuple[Any, ...] | None:
        """Return what ``__reduce_ex__`` returns for a reference; None for mori's own way.

        What is called when that is unpickled calls `mori.adapters.load` on the reference.
        """
        return None


class LeasingTransport(Transport):
    """A transport by reference that keeps a lease of each region, until it is dropped."""

    __slots__ = ("leases",)

    def __init__(self) -> None:
        self.leases: dict[bytes, Lease] = {}
        """By the id of the region."""

    def accepts(self, region: Mapping) -> bool:
        """Return True, with a lease taken."""
        assert region.lease is not None
        self.leases[region.region_id] = region.lease
        return True


TransportLike = Literal["reference", "value"] | Transport

transport_var: Final[ContextVar[TransportLike | Callable[[], TransportLike]]] = ContextVar(
    "mori_transport", default=destination.transport_of_frames
)
"""The variable that `use_transport` sets; an engine's own message code sets it directly, which is faster."""


@contextmanager
def use_transport(by: TransportLike | Callable[[], TransportLike]) -> Iterator[None]:
    """Choose how shared objects are pickled inside the context.

    Parameters
    ----------
    by : {"reference", "value"} or Transport or callable
        A function is called when something is pickled that can go either way, which few messages have, and
        returns one of the others.
    """
    token = transport_var.set(by)
    try:
        yield
    finally:
        transport_var.reset(token)


def current() -> TransportLike:
    """Return the transport of the pickle under way."""
    by = transport_var.get()
    return by() if callable(by) else by


def is_wanted(region: Mapping) -> bool:
    """Return whether a part of a region is to be pickled as a reference now.

    Not so if an engine is found in the middle of its own dump: its adapter has not said yet where that goes.
    """
    if not region.shared or load_adapters():
        return False
    by = current()
    return by == "reference" if isinstance(by, str) else by.accepts(region)


def is_by_value() -> bool:
    """Return whether somebody has asked for bytes, such as the user with `mori.by_value`."""
    if not is_set():
        return False
    by = current()
    return by == "value" if isinstance(by, str) else by.is_by_value


def is_set() -> bool:
    """Return whether anybody, such as an adapter, has chosen the transport of the pickle under way."""
    return transport_var.get(None) is not None


ADAPTERS: Final = {"distributed": "mori_dask", "ray": "mori_ray"}
_loaded: set[str] = set()
_broken: set[str] = set()  # engines whose adapter cannot be imported


def load_adapters() -> bool:
    """Import the adapters of the engines that this process has imported.

    Returns
    -------
    bool
        Whether an engine may be in the middle of a dump without an adapter that knows where it goes: one
        was imported only now, or could not be.
    """
    new = False
    for engine, adapter in ADAPTERS.items():
        if engine in _loaded or engine not in sys.modules:  # nearly always, and this is asked all the time
            continue
        if (module := imported(engine)) is not None:
            # Loaded only when it is ready: until then other threads wait here, for the import's own lock.
            fault: Exception | None = None
            try:
                load(adapter)
            except Exception as error:
                fault = error
                _broken.add(engine)
            _loaded.add(engine)
            new = True
            if fault is not None:
                warnings.warn(
                    f"{adapter} does not work with the {engine} {getattr(module, '__version__', '')} that is "
                    f"installed ({type(fault).__name__}: {fault}). Shared objects go by value in this "
                    f"process: right everywhere, but copied. Install a supported version: "
                    f"pip install 'mori[{adapter.removeprefix('mori_')}]'",
                    RuntimeWarning,
                    stacklevel=3,
                )
    return new or bool(_broken)
