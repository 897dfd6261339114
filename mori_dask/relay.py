"""What a scheduler passes on unopened: references, with leases of their regions while it has them.

A client or worker tells a scheduler of its own domain, in the header of what it serializes, which regions the
references in it are to. The scheduler keeps those, maps nothing, and hands the frames on as they are; for a
receiver of another domain it makes them anew, with the bytes.
"""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from distributed.protocol.compression import decompress
from distributed.protocol.serialize import (
    Serialize,
    Serialized,
    families,
    merge_and_deserialize,
    register_serialization_family,
    serialize_and_split,
)

from mori import adapters
from mori.adapters import Lease, transport_var, used
from mori_dask import raised
from mori_dask.message import Message, current

if TYPE_CHECKING:  # distributed comes without types of its own
    Serialized = object

__all__ = ["Relayed", "register"]

_KEY: Final = "mori"  # in the header of what is serialized: a reference to each region
_RAISED: Final = "mori-raised"  # there, too: that the references are in an exception, pickled into bytes
_logger = logging.getLogger("distributed.scheduler.mori")


def register() -> None:
    """Patch serialization so that messages to and from schedulers carry references."""
    if getattr(Serialized.__init__, "_mori", False):
        return
    for name in ("dask", "pickle"):
        dumps, loads, _ = families[name]
        register_serialization_family(name, _noting(dumps), loads)
    Serialized.__init__ = _holding(Serialized.__init__)


def _noting(plain: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a family of serializers: what is for a scheduler says which regions it refers to."""

    def dumps(x: Any, context: Any = None) -> Any:
        if not used.ever:
            return plain(x, context=context)
        message = transport_var.get(None)
        if type(x) is raised.Raised:
            return _raised(plain, x, current(), context)
        if type(message) is not Message or message.relayed is None:
            return plain(x, context=context)
        if message.relayed == "value":
            with adapters.use_transport("value"):
                return plain(x, context=context)
        if message.regions is not None:  # a part of what is noted already
            return plain(x, context=context)
        message.regions = {}
        try:
            header, frames = plain(x, context=context)
            if message.regions:
                header[_KEY] = list(message.regions.values())
        finally:
            message.regions = None
        return header, frames

    return dumps


def _raised(
    plain: Callable[..., Any], x: raised.Raised, message: Message | None, context: Any
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
    """Wrap what makes the object that stands for frames in a scheduler: it leases their regions."""

    @functools.wraps(plain)
    def init(self: Serialized, header: Any, frames: Any) -> None:
        plain(self, header, frames)
        if not isinstance(header, dict) or (_KEY not in header and "sub-headers" not in header):
            return
        if leases := [adapters.lease_of(whole) for whole in _noted(header)]:
            used.ever = True  # what is sent on may refer to regions
            self.__class__ = Relayed
            self._mori_leases = leases

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

    _mori_leases: list[Lease | None]

    @property
    def is_lost(self) -> bool:
        """Whether a region was gone when the frames came."""
        return None in self._mori_leases

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as what the receiver opens, in a task."""
        return _opened, (self.header, [bytes(frame) for frame in self.frames])

    def let_go(self) -> None:
        """Give the leases back, whoever still has the frames: they will not be sent."""
        self._mori_leases = []

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
        message = current()
        own = self.__dict__["header"], self.__dict__["frames"]
        if message is None or message.opened:
            return own
        if id(self) not in message.made:
            message.made[id(self)] = _with_bytes(*own)
        return message.made[id(self)]


def _opened(header: Any, frames: Any) -> Any:
    return merge_and_deserialize(header, decompress(header, frames) if "compression" in header else frames)


def _with_bytes(header: Any, frames: Any) -> tuple[Any, Any]:
    try:
        opened = _opened(copy.deepcopy(header), frames)  # it takes things out
        if _RAISED in header:
            opened = raised.with_bytes(opened)
        with adapters.use_transport("value"):
            made: tuple[Any, Any] = serialize_and_split(Serialize(opened), on_error="raise")
        return made
    except Exception:  # as of a class that the scheduler does not have: the receiver will say what it lacks
        _logger.exception("What refers to shared memory cannot be opened here, to be sent on as bytes")
        return header, frames
