"""Python objects in R's layout: what `mori.share` writes with ``layout="r"``.

An object becomes vectors and lists, which refer to its own buffers where R has the same numbers. What R
cannot hold is an error that names the path to it. docs/r.md has the table of types.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mori import _progress
from mori._imports import load
from mori.errors import NotShareableError
from mori.format import r_values
from mori.format.node import root_of
from mori.format.r import CHARACTER, COMPLEX, DOUBLE, INTEGER, LOGICAL, OTHER, RAW
from mori.format.r_writer import Layout, RList, RVector, wants_pairs
from mori.memory import region
from mori.store.base import R, align

__all__ = ["NA_INTEGER", "Encoder", "checked", "refused", "share", "strings_of", "zone_of"]

NA_INTEGER: Final = -(2**31)
_NA_REAL: Final = np.array(0x7FF00000000007A2, np.uint64).view(np.float64)
_MOST_EXACT: Final = 2**53
_INT64_MIN: Final = -(2**63)
_DEPTH: Final = 100

# The kinds of scalars, by type or by the kind of numpy's: lists of one kind are vectors.
_SCALARS: Final[dict[type, str]] = {
    bool: "b",
    int: "i",
    float: "f",
    complex: "c",
    str: "s",
    np.str_: "s",
    dt.date: "D",
    dt.datetime: "T",
    dt.timedelta: "m",
}
_NUMPY: Final = {"b": "b", "i": "i", "u": "i", "f": "f", "c": "c", "M": "M", "m": "m"}
_DTYPES: Final = {"b": "?", "i": "i8", "f": "f8", "c": "c16", "D": "M8[D]", "M": "M8[us]", "m": "m8[us]"}
_DAYS: Final = ("Y", "M", "W", "D")  # units of numpy's that R has as Date
_INSTEAD: Final = "Leave it out, or convert it to arrays, frames, lists, dicts, numbers, text or dates"
_INSTEAD_OF_DTYPE: Final = {
    "S": "Share text (x.astype('U')), or bytes as an array of uint8",
    "V": "Share a DataFrame, or a dict of its fields",
}


def share(obj: Any, layout: str) -> Any:
    """Write an object in R's layout into a new region, and return what it is there."""
    if obj is None:
        return None
    root = Encoder(bit64=layout == "r+bit64").encode(obj)
    if isinstance(root, RVector) and root.type == OTHER:
        raise refused("obj", "an object of R's own is no vector", "Share it in a list")
    written = Layout(pairs=wants_pairs())
    nbytes = written.region_nbytes(root)
    if (shown_by := _progress.meter()) is not None:
        shown_by.writing(nbytes)
    return root_of(region.create(nbytes, partial(written.write, root), 0, kind=R)).open_first()


class Encoder:
    """Makes vectors and lists of objects. `bit64`: integers of 64 bits are those of R's package bit64."""

    def __init__(self, *, bit64: bool = False) -> None:
        self.bit64 = bit64
        self._ancestors: set[int] = set()

    def encode(self, obj: Any, path: str = "obj") -> RVector | RList:
        """Return an object as vectors and lists.

        Raises
        ------
        NotShareableError
            For what R cannot hold; it names the path.
        """
        if obj is None:
            return RVector(OTHER, 0, [np.frombuffer(r_values.NULL, np.uint8)], {})
        if isinstance(obj, np.ma.MaskedArray):
            return self.array(obj.data, path, np.ma.getmaskarray(obj))
        if isinstance(obj, np.ndarray | np.generic):
            return self.array(np.asarray(obj), path)
        if type(obj) in _SCALARS:
            return self._scalars([obj], _SCALARS[type(obj)], path)
        if isinstance(obj, memoryview):
            return self.array(np.asarray(obj), path)
        if isinstance(obj, bytes | bytearray):
            raw = np.frombuffer(bytes(obj), np.uint8)
            return RVector(RAW, len(raw), [raw], {})
        kind = getattr(obj, "_kind", type(obj))  # a shared container stands for a builtin
        if kind in (list, tuple):
            return self._nested(obj, path, lambda: self.sequence(list(obj), path))
        if kind is dict:
            return self._nested(obj, path, lambda: self._dict(dict(obj.items()), path))
        made: RVector | RList | None = None
        if any(cls.__module__.partition(".")[0] == "pandas" for cls in type(obj).__mro__):
            made = load("mori.codecs.pandas.r").encode(self, obj, path)
        elif serialized := getattr(obj, "r_serialized", b""):  # an object of R's own
            made = RVector(OTHER, 0, [np.frombuffer(serialized, np.uint8)], {})
        if made is None:
            remedy = "Use x.to_pandas()" if hasattr(obj, "to_pandas") else _INSTEAD
            raise refused(path, f"its class is {type(obj).__qualname__}, which R has not", remedy)
        return made

    def _nested(self, obj: object, path: str, encode: Callable[[], RVector | RList]) -> RVector | RList:
        if id(obj) in self._ancestors:
            raise refused(path, "it contains itself, as no list of R's does", "Leave it out")
        if len(self._ancestors) >= _DEPTH:
            raise refused(path, f"it lies deeper than {_DEPTH} levels", "Flatten it")
        self._ancestors.add(id(obj))
        try:
            return encode()
        finally:
            self._ancestors.discard(id(obj))

    def sequence(self, values: list[Any], path: str) -> RVector | RList:
        """Return a vector of scalars of one kind, else a list of the elements."""
        kinds = {_kind_of(value) for value in values} - {None}
        if kinds == {"i", "f"}:
            kinds = {"f"}
        if len(kinds) == 1 and (kind := kinds.pop()):
            return self._scalars(values, kind, path)
        return RList([self.encode(value, f"{path}[{place}]") for place, value in enumerate(values)], {})

    def _dict(self, items: dict[Any, Any], path: str) -> RList:
        for key in items:
            if not isinstance(key, str):
                remedy = "Use text for all keys: {str(key): value for key, value in x.items()}"
                raise refused(f"{path}[{key!r}]", "the key is no text, as R's names are", remedy)
            checked(key, f"{path}[{key!r}]")
        children = [self.encode(value, f"{path}[{key!r}]") for key, value in items.items()]
        return RList(children, {"names": [*items]})

    def _scalars(self, values: list[Any], kind: str, path: str) -> RVector | RList:
        missing = np.array([_is_missing(value) for value in values], bool)
        if kind == "s":
            return self.strings([None if _is_missing(value) else str(value) for value in values], path)
        present = [value for value in values if not _is_missing(value)]
        zone = "UTC"
        if kind == "T":
            names = {zone_of(value.tzinfo) for value in present if value.tzinfo is not None}
            zone = names.pop() if len(names) == 1 else zone
            present = [_instant(value) for value in present]
            kind = "M"
        try:
            given: npt.NDArray[Any] = np.array(present, _DTYPES[kind])
        except (OverflowError, ValueError) as error:
            raise refused(path, f"a value is too large ({error})", "Convert it to float, or text") from error
        if kind == "i" and given.min(initial=0) > NA_INTEGER and given.max(initial=0) < 2**31:
            given = given.astype(np.int32)
        full = np.zeros(len(values), given.dtype)
        full[~missing] = given
        if kind == "M":
            full[missing] = np.datetime64("NaT")
            return self.times(full, path, zone)
        return self.array(full, path, missing)

    def array(
        self, array: npt.NDArray[Any], path: str, missing: npt.NDArray[np.bool_] | None = None
    ) -> RVector | RList:
        """Return the vector of an array, with its shape; `missing` says which elements are NA."""
        kind = array.dtype.kind
        flat: npt.NDArray[Any] = array.view(np.ndarray).ravel("F")
        gone = None if missing is None or not missing.any() else missing.ravel("F")
        if array.ndim > 1 and max(array.shape) >= 2**31:
            raise refused(path, f"a side of its shape {array.shape} is too long", "Reshape it")
        if kind in "OT":
            made = self.sequence(flat.tolist(), path)
            if array.ndim > 1 and not isinstance(made, RVector):
                raise refused(path, "it is an array of objects", "Convert it to numbers or text")
        elif kind == "U":
            texts: Any = flat.astype(object)
            texts[slice(0) if gone is None else gone] = None
            made = self.strings(texts.tolist(), path)
        elif kind in "Mm":
            if gone is not None:
                flat = np.where(gone, np.array("NaT", flat.dtype), flat)
            made = self.times(flat, path) if kind == "M" else self._differences(flat, path)
        else:
            made = self._numbers(flat, gone, path)
        if array.ndim < 2:
            return made
        return made._replace(attributes={"dim": np.array(array.shape, np.int32), **made.attributes})

    def _numbers(self, flat: npt.NDArray[Any], gone: npt.NDArray[np.bool_] | None, path: str) -> RVector:
        dtype = flat.dtype
        kind, size = dtype.kind, dtype.itemsize
        if dtype == np.uint8 and gone is None:
            return RVector(RAW, len(flat), [flat], {})
        if kind == "b" or (size < 4 and kind in "iu") or (kind == "i" and size == 4):
            there = flat if gone is None else flat[~gone]
            if kind == "i" and there.min(initial=0) == NA_INTEGER:
                raise refused(path, f"it holds {NA_INTEGER}, R's missing integer", "Convert it to float64")
            numbers = flat.astype(np.int32, copy=gone is not None)
            if gone is not None:
                numbers[gone] = NA_INTEGER
            return RVector(LOGICAL if kind == "b" else INTEGER, len(flat), [numbers], {})
        if kind in "iu":
            return self._wide(flat, gone, path)
        if kind == "f" and size <= 8:
            return _with_na(DOUBLE, flat.astype(np.float64, copy=gone is not None), gone)
        if kind == "c" and size <= 16:
            return _with_na(COMPLEX, flat.astype(np.complex128, copy=gone is not None), gone)
        found = f"its dtype is {dtype}, which R has not"
        raise refused(path, found, _INSTEAD_OF_DTYPE.get(kind, "Convert it to float64, or to text"))

    def _wide(self, flat: npt.NDArray[Any], gone: npt.NDArray[np.bool_] | None, path: str) -> RVector:
        """Return integers that R's own type is too narrow for: doubles, where these are exact."""
        there = flat if gone is None else flat[~gone]
        least, most = (int(there.min()), int(there.max())) if there.size else (0, 0)
        if self.bit64:
            if not _INT64_MIN < least <= most < 2**63:
                found = f"it holds {least} to {most}, beyond the integers of bit64"
                raise refused(path, found, "Convert it to float64")
            wide = flat.astype(np.int64, copy=gone is not None)
            if gone is not None:
                wide[gone] = _INT64_MIN
            return RVector(DOUBLE, len(flat), [wide], {"class": ["integer64"]})
        if max(-least, most) > _MOST_EXACT:
            found = f"it holds {most if most > -least else least}, and R's numbers are exact up to 2**53"
            remedy = "Share it with layout='r+bit64' for R's package bit64, or as float64 or text"
            raise refused(path, found, remedy)
        return _with_na(DOUBLE, flat.astype(np.float64), gone)

    def times(self, times: npt.NDArray[Any], path: str, zone: str = "UTC") -> RVector:
        """Return instants as POSIXct, to be shown in a zone, and days as Date."""
        if np.datetime_data(times.dtype)[0] in _DAYS:
            days = _as_floats(times.astype("M8[D]"))
            return RVector(DOUBLE, len(times), [days], {"class": ["Date"]})
        attributes = {"class": ["POSIXct", "POSIXt"], "tzone": [zone]}
        return RVector(DOUBLE, len(times), [_seconds(times, path)], attributes)

    def _differences(self, times: npt.NDArray[Any], path: str) -> RVector:
        attributes = {"class": ["difftime"], "units": ["secs"]}
        return RVector(DOUBLE, len(times), [_seconds(times, path)], attributes)

    def strings(self, values: list[str | None], path: str) -> RVector:
        """Return a vector of strings, None for a missing one."""
        try:
            encoded = [b"" if value is None else value.encode() for value in values]
        except UnicodeEncodeError as error:
            place = [value is None or _is_text(value) for value in values].index(False)
            raise refused(f"{path}[{place}]", f"it is no text ({error})", "Share it as bytes") from error
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        missing = np.fromiter((value is None for value in values), bool, len(values))
        return strings_of(lengths, missing, np.frombuffer(b"".join(encoded), np.uint8), path)


def refused(path: str, found: str, remedy: str) -> NotShareableError:
    """Return the error for what R cannot hold."""
    return NotShareableError(path=path, found=f"R cannot hold it: {found}", remedy=remedy)


def zone_of(zone: object) -> str:
    """Return the name of a time zone; "UTC" for one without: R has "UTC+05:30" the other way round."""
    return str(getattr(zone, "key", None) or getattr(zone, "zone", None) or "UTC")


def checked(text: str, path: str) -> None:
    """Raise for a name that R cannot hold."""
    if "\0" in text or not _is_text(text):
        raise refused(path, "a name in R has no NUL and is UTF-8", "Rename it")


def strings_of(
    lengths: npt.NDArray[np.int64], missing: npt.NDArray[np.bool_], text: npt.NDArray[np.uint8], path: str
) -> RVector:
    """Return strings by their lengths in UTF-8, and the text, in which one stands behind the other."""
    ends = np.cumsum(lengths)
    if not text.all():
        place = int(np.searchsorted(ends, int(np.argmin(text != 0)), "right"))
        raise refused(f"{path}[{place}]", "R's strings have no NUL", "Take it out, or share it as bytes")
    if lengths.max(initial=0) >= 2**31:
        raise refused(f"{path}[{int(lengths.argmax())}]", "R's strings are shorter than 2 GB", "Split it")
    table = np.zeros(len(lengths), [("offset", "i8"), ("length", "i4"), ("encoding", "i4")])
    table["offset"] = np.where(missing, 0, ends - lengths)
    table["length"] = np.where(missing, -1, lengths)
    table["encoding"] = ~missing  # 1, for UTF-8
    padding = np.zeros(align(table.nbytes) - table.nbytes, np.uint8)
    return RVector(CHARACTER, len(lengths), [table, padding, text], {})


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind_of(value: Any) -> str | None:
    """Return the kind of a scalar, None for a missing one, "" for what is none."""
    if _is_missing(value):
        return None
    kind = _SCALARS.get(type(value), "")
    if not kind and isinstance(value, np.generic) and value.itemsize <= 16:
        kind = _NUMPY.get(value.dtype.kind, "")
    return kind


def _is_missing(value: Any) -> bool:
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def _instant(value: dt.datetime) -> dt.datetime:
    return value if value.tzinfo is None else value.astimezone(dt.UTC).replace(tzinfo=None)


def _with_na(number: int, values: npt.NDArray[Any], gone: npt.NDArray[np.bool_] | None) -> RVector:
    if gone is not None:
        values[gone] = _NA_REAL
    return RVector(number, len(values), [values], {})


def _as_floats(times: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    numbers = times.view(np.int64).astype(np.float64)
    numbers[np.isnat(times)] = _NA_REAL
    return numbers


def _seconds(times: npt.NDArray[Any], path: str) -> npt.NDArray[np.float64]:
    """Return times as doubles of seconds, which tell microseconds for some centuries."""
    unit = f"{times.dtype.kind}8[us]"
    there = ~np.isnat(times)
    fine = times.astype(unit)
    seconds = fine.view(np.int64) / 1e6
    reread = np.rint(np.where(there, seconds, 0) * 1e6).astype(np.int64).view(unit)
    is_same = (reread.astype(times.dtype) == times) | ~there
    if not is_same.all():
        found = f"it holds {times[int(np.argmin(is_same))]}, and R's times tell microseconds at the most"
        raise refused(path, found, f"Round it (x.astype('{unit}')), or share it as int64 or text")
    seconds[~there] = _NA_REAL
    return seconds
