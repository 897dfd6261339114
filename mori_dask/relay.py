"""What a scheduler passes on unopened: references, with a hold on their regions while it has them.

Imports handshake, distributed and mori. A client or worker tells a scheduler of its own domain, in the
header of what it serializes, which regions the references in it are to. The scheduler keeps those, maps
nothing, and hands the frames on as they are; for a receiver of another domain it makes them anew, with the
bytes.
"""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, Final

import distributed.protocol
from distributed.protocol.compression import decompress
from distributed.protocol.serialize import (
    Serialize,
    Serialized,
    families,
    merge_and_deserialize,
    register_serialization_family,
    serialize_and_split,
)

from mori import reference, region
from mori.hold import Hold
from mori.region import Mapping
from mori_dask import raised
from mori_dask.handshake import receiver_here, relays

__all__ = ["References", "Relayed", "is_needed", "is_opened", "register"]

_KEY: Final = "mori"  # in the header of what is serialized: a reference to each region
_RAISED: Final = "mori-raised"  # there, too: that the references are in an exception, pickled into bytes
_logger = logging.getLogger("distributed.scheduler.mori")


class References:
    """The way of references whose regions are noted.

    With `grace`, they outlast their last use by the sender, as they do with every reference on its way.
    """

    def __init__(self, *, grace: bool) -> None:
        self.regions: dict[bytes, bytes] = {}
        self._grace = grace

    def takes(self, mapping: Mapping) -> bool:
        """Take any."""
        if self._grace and mapping.hold is not None:
            mapping.hold.pickled = True
        return True

    def reduce(self, payload: bytes) -> tuple[Any, ...]:
        """Return what a reference is without an adapter."""
        region_id, whole = reference.region_of(payload)
        self.regions[region_id] = whole
        return reference.load, (payload,)


class _Message:
    """What is known of the message that is being made, found out when something in it asks.

    relayed : by a scheduler of this domain: references, or values; None if it is not passed on
    kept : what is in it, by its sender, until it is answered
    opened : by its receiver, or by whom that passes it to: it is of this domain
    made : header and frames of what is made anew for it
    """

    __slots__ = ("_context", "kept", "made", "opened", "relayed")
    relayed: str | None
    opened: bool
    made: dict[int, tuple[Any, Any]]

    def __init__(self, msg: Any, context: Any) -> None:
        self._context = context
        # Who answers with keys keeps them until the other has said OK.
        self.kept = isinstance(msg, dict) and msg.keys() == {"status", "data"}

    def __getattr__(self, name: str) -> Any:
        here = receiver_here(self._context)
        self.relayed = None if here is None else relays(here)
        self.opened = here is not None
        self.made = {}
        return getattr(self, name)


_message: ContextVar[_Message | None] = ContextVar("mori_dask_message", default=None)


def register() -> None:
    """Have messages to and from schedulers carry references."""
    if getattr(Serialized.__init__, "_mori", False):
        return
    distributed.protocol.dumps = _knowing(distributed.protocol.dumps)
    for name in ("dask", "pickle"):
        dumps, loads, _ = families[name]
        register_serialization_family(name, _noting(dumps), loads)
    Serialized.__init__ = _holding(Serialized.__init__)


_relays = False


def is_needed() -> bool:
    """Say whether a message can have references: this process has had a region, or passes some on.

    What shares its first object in the middle of a message pickles it by value: see `buffers`.
    """
    return _relays or region.is_used()


def is_opened() -> bool:
    """Say whether the message that is being made is opened in this domain, by its receiver or further on."""
    message = _message.get()
    return message is not None and message.opened


def _knowing(plain: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def dumps(msg: Any, *args: Any, context: Any = None, **kwargs: Any) -> Any:
        if not is_needed():
            return plain(msg, *args, context=context, **kwargs)
        token = _message.set(_Message(msg, context))
        try:
            return plain(msg, *args, context=context, **kwargs)
        finally:
            _message.reset(token)

    return dumps


def _noting(plain: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a family of serializers: what is for a scheduler says which regions it refers to."""

    def dumps(x: Any, context: Any = None) -> Any:
        message = _message.get()
        if type(x) is raised.Raised:
            return _raised(plain, x, message, context)
        if message is None or message.relayed is None:
            return plain(x, context=context)
        if message.relayed == "value":
            with reference.travel("value"):
                return plain(x, context=context)
        references = References(grace=not message.kept)
        with reference.travel(references):
            header, frames = plain(x, context=context)
        if references.regions:
            header[_KEY] = list(references.regions.values())
        return header, frames

    return dumps


def _raised(
    plain: Callable[..., Any], x: raised.Raised, message: _Message | None, context: Any
) -> tuple[Any, Any]:
    """Serialize an exception, which was pickled with references, for who gets it."""
    if message is None or not message.opened or message.relayed == "value":
        return plain(raised.with_bytes(x), context=context)  # type: ignore[no-any-return]
    header, frames = plain(bytes(x), context=context)
    if message.relayed:
        header |= {_KEY: x.regions, _RAISED: True}
    x.sent()
    return header, frames


def _holding(plain: Callable[..., None]) -> Callable[..., None]:
    """Wrap what makes the object that stands for frames in a scheduler: it holds their regions."""

    @functools.wraps(plain)
    def init(self: Serialized, header: Any, frames: Any) -> None:
        plain(self, header, frames)
        holds = [reference.hold(whole) for whole in _noted(header)]
        if holds:
            global _relays
            _relays = True
            self.__class__ = Relayed
            self._mori_holds = holds

    init._mori = True  # type: ignore[attr-defined]
    return init


def _noted(header: Any) -> Iterator[bytes]:
    """Yield the references that a header notes, those of the elements of a collection included."""
    if isinstance(header, dict):
        yield from header.get(_KEY, ())
        for below in header.get("sub-headers", ()):
            yield from _noted(below)


class Relayed(Serialized):
    """Frames with references, which are others for a receiver that cannot open them."""

    _mori_holds: list[Hold | None]

    def let_go(self) -> None:
        """Hold the regions no more, whoever still has the frames: nobody is to get them."""
        self._mori_holds = []

    @property
    def header(self) -> Any:
        return self._for_receiver()[0]

    @header.setter
    def header(self, header: Any) -> None:
        self.__dict__["header"] = header

    @property
    def frames(self) -> Any:
        return self._for_receiver()[1]

    @frames.setter
    def frames(self, frames: Any) -> None:
        self.__dict__["frames"] = frames

    def _for_receiver(self) -> tuple[Any, Any]:
        message = _message.get()
        own = self.__dict__["header"], self.__dict__["frames"]
        if message is None or message.opened:
            return own
        if id(self) not in message.made:
            message.made[id(self)] = _with_bytes(*own)
        return message.made[id(self)]


def _with_bytes(header: Any, frames: Any) -> tuple[Any, Any]:
    try:
        plain = decompress(header, frames) if "compression" in header else frames
        opened = merge_and_deserialize(copy.deepcopy(header), plain)  # it takes things out
        if _RAISED in header:
            opened = raised.with_bytes(opened)
        with reference.travel("value"):
            made: tuple[Any, Any] = serialize_and_split(Serialize(opened), on_error="raise")
        return made
    except Exception:  # as of a class that the scheduler does not have: the receiver will say what it lacks
        _logger.exception("What refers to shared memory cannot be opened here, to be sent on as bytes")
        return header, frames
