"""What goes by value though a task is to have it: the log says why, once for each reason."""

from __future__ import annotations

import logging
from typing import Any, Final

from mori.adapters import Region, Transport, TransportLike
from mori_dask import config

__all__ = ["transport"]

_logger = logging.getLogger("distributed.mori")
_said: Final[set[str]] = set()
_REASONS: Final = {
    False: (
        "the {who} at {where} has not said that it has mori: start it with --preload mori_dask, or call "
        "mori_dask.install(client)"
    ),
    True: (
        "the {who} at {where} cannot open the regions of this process: it is on another host, in another "
        "container, or of another user or store. mori_dask.scatter sends an object once a host"
    ),
}


class _Far(Transport):
    """The transport of tasks to somebody who cannot open regions."""

    __slots__ = ("_has_mori", "_where", "_who")
    is_by_value = True

    def __init__(self, who: str, where: str, has_mori: bool) -> None:
        self._who = who
        self._where = where
        self._has_mori = has_mori

    def accepts(self, region: Region) -> bool:
        reason = _REASONS[self._has_mori]
        if reason not in _said:
            _said.add(reason)
            why = reason.format(who=self._who, where=self._where)
            _logger.warning("A shared object goes to a task by value, as will others: %s", why)
        return False


def transport(who: str, context: dict[str, Any] | None) -> TransportLike:
    """Return the transport of tasks for a peer that cannot open regions: bytes, and a warning."""
    if not config.enabled():
        return "value"
    other = (context or {}).get("recipient") or {}
    return _Far(who, other.get("address", "an address unknown"), "mori" in other)
