"""What the user may set by Dask's configuration: the keys ``mori.*``, with their defaults in mori-dask.yaml.

A value is read and checked at each use; one that cannot be used is an error that names the key.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import dask
import yaml
from dask.utils import parse_bytes

from mori import SettingError, adapters

__all__ = ["check", "enabled", "faults", "get", "least", "register"]

_DEFAULTS: Final[dict[str, Any]] = yaml.safe_load(
    Path(__file__).with_name("mori-dask.yaml").read_text(encoding="utf-8")
)


def _store(value: Any) -> str | None:
    if value is None or (isinstance(value, str) and _is_store(value)):
        return value
    raise ValueError


def _is_store(text: str) -> bool:
    kind, colon, directory = text.partition(":")
    return (kind in ("memfd", "files") and not colon) or (kind == "files" and bool(directory))


def _seconds(value: Any) -> float | None:
    return None if value is None else _number(value, 0, math.inf)


def _number(value: Any, least: float, most: float) -> float:
    number = math.nan if isinstance(value, bool) else float(value)
    if not least <= number < math.inf or number > most:
        raise ValueError
    return number


def _fraction(value: Any) -> float:
    number = _number(value, 0, 1)
    if not number:
        raise ValueError
    return number


def _yes_or_no(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _bytes(value: Any) -> int:
    nbytes = int(parse_bytes(value)) if isinstance(value, int | str) and not isinstance(value, bool) else 0
    if nbytes <= 0:
        raise ValueError
    return nbytes


def _pool(value: Any) -> int | None:
    return value if value is None or (value == 0 and not isinstance(value, bool)) else _bytes(value)


def _bytes_or_off(value: Any) -> int | None:
    return None if value is None or value is False else _bytes(value)


def _one_of(*words: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if value not in words:
            raise ValueError
        return str(value)

    return parse


_KEYS: Final[dict[str, tuple[Callable[[Any], Any], str]]] = {
    "mori.store": (_store, "memfd, files or files:DIR"),
    "mori.grace": (_seconds, "seconds, a number from 0 up"),
    "mori.pool": (_pool, "a number of bytes such as '2 GB', or 0"),
    "mori.pool-seconds": (_seconds, "seconds, a number from 0 up"),
    "mori.dask.enabled": (_yes_or_no, "true or false"),
    "mori.dask.frame-interception": (_yes_or_no, "true or false"),
    "mori.dask.min-bytes": (_bytes, "a number of bytes such as '1 kiB'"),
    "mori.dask.relay": (_yes_or_no, "true or false"),
    "mori.dask.land-bytes": (_bytes_or_off, "a number of bytes such as '1 MiB', or false"),
    "mori.dask.auto-share": (_bytes_or_off, "a number of bytes such as '10 MB', or false"),
    "mori.dask.auto-share-fraction": (_fraction, "a number above 0, of at most 1"),
    "mori.dask.memory-accounting": (_yes_or_no, "true or false"),
    "mori.dask.keep-replicas": (_yes_or_no, "true or false"),
    "mori.dask.spill": (_one_of("reference", "value"), "reference or value"),
    "mori.dask.sizeof": (_one_of("reference", "full"), "reference or full"),
}


def get(key: str) -> Any:
    """Return what a key is set to, such as ``"mori.dask.auto-share"``: bytes as int, off as None.

    Raises
    ------
    mori.SettingError
        If it cannot be used.
    """
    parse, wanted = _KEYS[key]
    value = dask.config.config
    try:
        for step in _steps[key]:  # asked several times a message: Dask's own way takes five times as long
            value = value[step]
    except (KeyError, TypeError):
        value = dask.config.get(key, default=_defaults[key])
    read = _read.get(key)
    if read is not None and read[0] is value:
        return read[1]
    try:
        parsed = parse(value)
    except (ValueError, TypeError, OverflowError):
        raise SettingError(setting=key, value=value, wanted=wanted) from None
    _read[key] = value, parsed
    return parsed  # and not what another thread has read meanwhile


def enabled() -> bool:
    """Return whether shared objects go as references at all (``mori.dask.enabled``)."""
    return bool(get("mori.dask.enabled"))


def least() -> int | None:
    """Return from how many bytes on plain buffers that lie in regions are named; None if none is."""
    return int(get("mori.dask.min-bytes")) if get("mori.dask.frame-interception") else None


def check() -> None:
    """Check all keys, and that none is there which does not exist.

    Raises
    ------
    mori.SettingError
        For the first one that cannot be used.
    """
    for key in _KEYS:
        get(key)
    for key, value in _flat("mori", dask.config.get("mori", default={})):
        if key.replace("_", "-") not in _KEYS and value != {}:
            raise SettingError(setting=key, value=value, wanted=f"one of the keys {', '.join(_KEYS)}")


def faults() -> list[str]:
    """Return what is wrong with the configuration, for ``mori doctor --engines``."""
    try:
        check()
    except SettingError as error:
        return [str(error)]
    return []


def _flat(path: str, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, dict) or not value:
        return [(path, value)]
    return [found for key, inner in value.items() for found in _flat(f"{path}.{key}", inner)]


_read: Final[dict[str, tuple[Any, Any]]] = {}  # by key: what was found last, and what that means
_steps: Final = {key: tuple(key.split(".")) for key in _KEYS}
_defaults: Final = dict(_flat("mori", _DEFAULTS["mori"]))


def register() -> None:
    """Add the defaults to Dask's configuration, and that configuration to the sources of mori's settings."""
    if _DEFAULTS not in dask.config.defaults:
        dask.config.update_defaults(_DEFAULTS)
    adapters.add_settings(_setting)


def _setting(name: str) -> tuple[str, str] | None:
    """Return key and text of a setting of mori's, such as ``grace``, if Dask's configuration has it."""
    key = f"mori.{name.replace('_', '-')}"
    value = get(key) if key in _KEYS else None
    return None if value is None else (key, str(value))
