"""Lists and tuples, opened in constant time, an element decoded when it is asked for.

Imports the view and the reader.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterator, MutableSequence, Sequence
from typing import Any, cast

from mori import codec
from mori.layout import Codec as Id
from mori.reader import opener
from mori.views.view import SHOWN, View

__all__ = ["SharedList", "SharedTuple"]


class _Elements(View[list[Any]], Sequence[Any]):
    """Lists and tuples."""

    __slots__ = ()
    _kind: type
    _outside: str

    def _index(self, index: Any) -> int:
        number = cast(int, index.__index__())
        length = len(self)
        if not -length <= number < length:
            raise IndexError(self._outside)
        return number + length if number < 0 else number

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            part = [self[number] for number in range(*index.indices(len(self)))]
            return self._kind(part)
        if not hasattr(index, "__index__"):
            kind = self._kind.__name__
            raise TypeError(f"{kind} indices must be integers or slices, not {type(index).__name__}")
        number = self._index(index)
        return self._open(number) if self._own is None else self._own[number]

    def __iter__(self) -> Iterator[Any]:
        if self._own is not None:
            return iter(self._own)
        return map(self._open, range(len(self)))

    def _copy(self) -> list[Any]:
        return [self._open(index) for index in range(len(self))]

    def _adopt(self, index: Any, part: object) -> None:
        if self._own is None:
            self._private()[index] = part

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, self._kind | type(self)):
            return NotImplemented
        theirs = cast(Sequence[Any], other)
        return len(self) == len(theirs) and all(a is b or a == b for a, b in zip(self, theirs, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def _compared(self, other: object, compare: Callable[[Any, Any], bool]) -> Any:
        if not isinstance(other, self._kind | type(self)):
            return NotImplemented
        return compare(self._kind(self), self._kind(cast(Sequence[Any], other)))

    def __lt__(self, other: object) -> Any:
        return self._compared(other, operator.lt)

    def __le__(self, other: object) -> Any:
        return self._compared(other, operator.le)

    def __gt__(self, other: object) -> Any:
        return self._compared(other, operator.gt)

    def __ge__(self, other: object) -> Any:
        return self._compared(other, operator.ge)

    def __add__(self, other: Any) -> Any:
        if not isinstance(other, self._kind | type(self)):
            return NotImplemented
        return self._kind(itertools.chain(iter(self), cast(Sequence[Any], other)))

    def __radd__(self, other: Any) -> Any:
        if not isinstance(other, self._kind):
            return NotImplemented
        return self._kind(itertools.chain(cast(Sequence[Any], other), iter(self)))

    def __mul__(self, times: int) -> Any:
        return self._kind(self) * times

    __rmul__ = __mul__

    def __repr__(self) -> str:
        shown = [repr(element) for element in itertools.islice(self, SHOWN)]
        rest = f", ... {len(self):,} in all" if len(self) > SHOWN else ""
        return f"<{type(self).__name__} [{', '.join(shown)}{rest}]>"


class SharedList(_Elements, MutableSequence[Any]):
    """A list in shared memory.

    Opening it costs the same whatever its length. It reads and compares like a list; a change of
    structure (`append`, ``x[0] = 1``) acts on this object alone, which then pickles as a plain list
    whose untouched elements are still references.
    """

    __slots__ = ()
    _kind = list
    _outside = "list index out of range"

    def __setitem__(self, index: Any, value: Any) -> None:
        self._private()[index] = value

    def __delitem__(self, index: Any) -> None:
        del self._private()[index]

    def insert(self, index: int, value: Any) -> None:
        """Insert before an index; this list alone changes."""
        self._private().insert(index, value)

    def sort(self, *, key: Any = None, reverse: bool = False) -> None:
        """Sort this list alone."""
        self._private().sort(key=key, reverse=reverse)

    def copy(self) -> list[Any]:
        """Return a plain list of the same elements."""
        return list(self)


class SharedTuple(_Elements):
    """A tuple in shared memory; see `SharedList`."""

    __slots__ = ()
    _kind = tuple
    _outside = "tuple index out of range"

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(self))

    def _plain(self) -> tuple[Any, ...]:
        return tuple(super()._plain())


for _id, _view in ((Id.LIST, SharedList), (Id.TUPLE, SharedTuple)):
    opener(_id)(cast(Any, _view))
    _codec = codec.for_id(_id)
    assert _codec is not None
    codec.register(_codec, _view)
