"""What an object contains, looked at before it is pickled: which classes, what is large, what is met more
than once.

A pickle keeps two references to one object apart from two equal objects, but only inside one stream. Many
streams need to know beforehand which objects are met again. The walk goes level by level, by functions in C
over all objects of a level, so that it takes less than pickling them; and only what has a second reference is
remembered.
"""

from __future__ import annotations

import copyreg
import enum
import gc
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress, tee
from types import FunctionType
from typing import Any, Final, NamedTuple

import numpy as np

from mori.format import codec
from mori.format.atoms import types_of
from mori.format.refcounts import held_twice

__all__ = ["LARGE", "LONG", "Common", "Contents", "Kind", "Survey"]

LARGE: Final = 512
"""Elements of a container inside another from which on it is a node of its own."""

LONG: Final = 4096
"""Bytes from which on bytes are a node of their own: what is shorter is read faster than it is mapped."""

_ATOMS: Final = frozenset({type(None), bool, int, float, str, bytes})
"""Types that a pickle has opcodes for: they name no class, and which of two equal objects it is does not
matter.
"""

_BUILTIN: Final = frozenset({list, dict, tuple, set, frozenset})
_IMMUTABLE_BUILTIN: Final = frozenset({tuple, frozenset})
_BYTES: Final = frozenset({bytes, bytearray})
_FIXED: Final = frozenset(  # named, not imported
    {
        *("datetime.date", "datetime.datetime", "datetime.time", "datetime.timedelta", "datetime.timezone"),
        *("decimal.Decimal", "fractions.Fraction", "uuid.UUID", "pathlib.PosixPath", "pathlib.PurePosixPath"),
        *("builtins.complex", "builtins.range", "builtins.ellipsis", "builtins.function"),
        *(
            "builtins.builtin_function_or_method",
            "builtins.type",
            "pathlib._local.PosixPath",
            "enum.EnumType",
        ),
        *("zoneinfo.ZoneInfo", "builtins.NotImplementedType", "pathlib._local.PurePosixPath", "abc.ABCMeta"),
        *("builtins.slice", "re.Pattern", "pickle.PickleBuffer"),
        *("pandas.Timestamp", "pandas.Timedelta", "pandas.Period", "pandas.api.typing.NaTType"),
        *(f"pandas._libs.tslibs.{name}" for name in ("timestamps.Timestamp", "timedeltas.Timedelta")),
        *(f"pandas._libs.tslibs.{name}" for name in ("period.Period", "nattype.NaTType")),  # pandas 2
    }
)
_REDUCING: Final = ("__reduce_ex__", "__reduce__", "__getstate__")


class Kind(enum.Enum):
    """How objects of a class are looked at."""

    BUILTIN = enum.auto()
    INSTANCE = enum.auto()  # its pickle is its class and its attributes
    RECORD = enum.auto()  # a namedtuple
    FIXED = enum.auto()  # it never changes, and nobody asks which of two equal ones it is
    OPAQUE = enum.auto()  # it pickles in a way of its own
    CODEC = enum.auto()  # it has a codec


class Common:
    """The objects that are met in several streams, in the order of their numbers."""

    def __init__(self) -> None:
        self.objects: list[Any] = []
        self._numbers: dict[int, int] = {}

    def number(self, obj: Any) -> int:
        """Return the number of an object."""
        number = self._numbers.setdefault(id(obj), len(self.objects))
        if number == len(self.objects):
            self.objects.append(obj)
        return number


class Contents(NamedTuple):
    """What some elements of a container contain."""

    classes: set[type]
    """Classes of plain instances: what pickles of such instances name."""
    special: dict[int, bool]
    """By id, the objects that pickles refer to: True for what is met again, False for what is a node of its
    own.
    """
    is_flat: bool
    """Whether the elements refer to atoms only."""
    is_fixed: bool
    """Whether nothing in them can be written to."""
    is_opaque: bool
    """Whether there are objects that pickle in a way of their own, or have a codec."""
    has_root: bool
    """Whether the container that they are elements of is in them."""
    seen: dict[int, Any]
    """By id, what others refer to, too, and was met for the first time."""
    repeated: dict[int, Any]
    """By id, what was met before."""

    def joined(self, other: Contents) -> Contents:
        """Return what these elements and others contain."""
        return Contents(
            self.classes | other.classes,
            self.special | other.special,
            self.is_flat and other.is_flat,
            self.is_fixed and other.is_fixed,
            self.is_opaque or other.is_opaque,
            self.has_root or other.has_root,
            self.seen | other.seen,
            self.repeated | other.repeated,
        )


class Survey:
    """The objects that are found while one object is measured.

    Objects of `apart` are known, from an earlier round, to be met again, and those of `nodes` to be nodes of
    their own. Those of this round are in `repeated`, or in `found_in_stream` if they were in a stream then.
    """

    def __init__(self, apart: dict[int, Any] | None = None, nodes: dict[int, Any] | None = None) -> None:
        self.apart: dict[int, Any] = {} if apart is None else apart
        self.repeated: dict[int, Any] = {}
        self.found_in_stream: dict[int, Any] = {}
        self.nodes: dict[int, Any] = {} if nodes is None else nodes
        self._containers: dict[int, Any] = dict(self.nodes)  # nodes of their own
        # What is in a stream or a column and others refer to, too. It is kept, or its id would be another's.
        self.seen: dict[int, Any] = {}
        self._kinds: dict[type, Kind] = {}
        self.common: Common = Common()
        for obj in self.apart.values():
            self.common.number(obj)

    def note_container(self, obj: Any) -> None:
        """Record a container that is a node of its own."""
        key = id(obj)
        if key in self.seen and key not in self._containers:
            self.found_in_stream[key] = obj
        self._containers[key] = obj

    def take(self, contents: Contents, *, is_common: bool = False) -> None:
        """Take note of what some elements have in common with others."""
        self.seen |= contents.seen
        if not is_common:  # what is met again in there is one object as it is
            self.repeated |= contents.repeated

    def take_arrays(self, held: list[Any]) -> bool:
        """Take note of those arrays of a column that others hold, too; return whether they can be in one.

        They cannot where one of them is known to be met again: a column has no identity for its elements.
        """
        new = {id(one): one for one in held}
        if len(new) < len(held) or not new.keys().isdisjoint(self.apart):
            return False
        self.repeated |= {key: new[key] for key in new.keys() & self.seen.keys()}
        self.seen |= new
        return True

    def take_pickled(
        self,
        objects: dict[int, Any],
        elements: Sequence[Any],
        holders: int,
        root: object,
        *,
        by_value: bool,
        is_common: bool,
        in_block: bool,
    ) -> None:
        """Take note of the objects that one stream was made of, as the pickler met them, by their ids.

        They are let go, so that their counts of references tell who else has them. `elements` are those that
        the stream begins with, which `holders` refer to besides this list. `by_value` says that functions
        are among the objects, so that each stream would make another of one.
        """
        first = {*map(id, elements)}
        kinds = {cls for cls in {*map(type, objects.values())} - _ATOMS if self.kind(cls) is not Kind.FIXED}
        if by_value:
            kinds.add(FunctionType)
        inner = [one for one in _of_types(objects.values(), kinds) if id(one) not in first]
        objects.clear()
        outer = [*_of_types(elements, kinds)]
        left = 0
        while left != len(inner):  # what was made for the pickler goes, and with it what it refers to
            left, inner = len(inner), held_twice(inner, 0)
        new = {}
        for one in (*held_twice(inner, 1), *held_twice(outer, holders + 1)):
            if id(one) in self._containers:
                if one is not root:  # in an object that pickles in a way of its own
                    self.found_in_stream[id(one)] = one
                continue
            if id(one) in self.apart:
                continue
            is_made = by_value and type(one) is FunctionType
            if not is_made and _is_anybodys(one, self.kind(type(one)), in_block=in_block):
                continue
            if id(one) in self.seen and not is_common:
                self.repeated[id(one)] = one
            else:
                new[id(one)] = one
        self.seen |= new

    def are_values(self, kinds: set[type]) -> bool:
        """Return whether objects of these types have no identity that matters, and cannot be written to."""
        return all(cls in _ATOMS or self.kind(cls) is Kind.FIXED for cls in kinds)

    def kind(self, cls: type) -> Kind:
        """Return how objects of a class are looked at."""
        kind = self._kinds.get(cls)
        if kind is None:
            kind = self._kinds[cls] = _kind(cls)
        return kind

    def contents(
        self,
        elements: list[Any],
        holders: int = 1,
        root: object = None,
        *,
        has_nodes: bool = True,
        is_common: bool = False,
        in_block: bool = False,
    ) -> Contents:
        """Look at some elements of a container, `root`, and all that is in them.

        `holders` is how many containers refer to each element besides the list that is given here.
        `has_nodes` says whether large builtins may be nodes of their own: not so in instances, whose methods
        expect their own. `is_common` says that the elements are what several streams refer to: they are
        looked into. `in_block` says that they stand in a block, where small parts are copied.
        """
        classes, special = set[type](), dict[int, bool]()
        seen, repeated = dict[int, Any](), dict[int, Any]()
        has_root, is_fixed, is_opaque, depth = False, True, False, 0
        refs, owners = elements, set[type]()
        while True:
            types = all_types = types_of(refs)
            has_nodes = has_nodes and not classes
            if has_nodes and types & _BYTES:
                special |= {id(one): False for one in refs if type(one) in _BYTES and len(one) >= LONG}
            types = types - _ATOMS
            if owners and (metaclasses := types & set(map(type, owners))):
                # An instance refers to its class; any other class is data, and has a name.
                is_opaque = is_opaque or not owners.issuperset(_of_types(refs, metaclasses))
                types = types - metaclasses
            if not types:
                break
            depth += 1
            kinds = {cls: self.kind(cls) for cls in types}
            examined = {cls for cls, kind in kinds.items() if kind is not Kind.FIXED}
            level = refs if all_types == examined else [*_of_types(refs, examined)]
            is_opaque = is_opaque or not {Kind.BUILTIN, Kind.INSTANCE, Kind.RECORD}.issuperset(kinds.values())
            is_fixed = is_fixed and examined <= _IMMUTABLE_BUILTIN | {
                cls for cls, kind in kinds.items() if kind is Kind.RECORD
            }
            owners = {cls for cls, kind in kinds.items() if kind in (Kind.INSTANCE, Kind.RECORD)}
            classes |= owners
            refs = []
            if examined:
                skipped = self._large(level, examined, special) if has_nodes else set()
                # The first level's objects are in the caller's list as well, if `level` is another.
                others = 1 if depth > 1 else holders + (level is not elements)
                here = set[int]()  # met for the first time on this level
                for one in held_twice(level, others):
                    if id(one) in skipped or _is_anybodys(one, kinds[type(one)], in_block=in_block):
                        continue
                    has_root = has_root or one is root
                    if one is root or self._is_elsewhere(
                        one, special, seen, repeated, here, is_common=is_common
                    ):
                        skipped.add(id(one))
                walked = examined - {cls for cls, kind in kinds.items() if kind in (Kind.OPAQUE, Kind.CODEC)}
                if skipped or here or walked != examined:
                    left = {id(one): one for one in level if type(one) in walked and id(one) not in skipped}
                    level = [*left.values()]
                refs = gc.get_referents(*level)
        return Contents(
            classes,
            special,
            depth <= 1 and not classes and not is_opaque,
            is_fixed,
            is_opaque,
            has_root,
            seen,
            repeated,
        )

    def _is_elsewhere(
        self,
        one: Any,
        special: dict[int, bool],
        seen: dict[int, Any],
        repeated: dict[int, Any],
        here: set[int],
        *,
        is_common: bool,
    ) -> bool:
        """Take note of an object that others refer to, too; return whether it is looked into elsewhere."""
        key = id(one)
        if key in self._containers:
            special[key] = False
        elif key in self.apart and not is_common:
            special[key] = True
        elif key in seen or (key in self.seen and not is_common):
            repeated[key] = one
            return key not in here
        else:
            seen[key] = one
            here.add(key)
            return False
        return True

    def _large(self, level: list[Any], types: set[type], special: dict[int, bool]) -> set[int]:
        """Return the ids of the builtins that are nodes of their own."""
        sized = level if types <= _BUILTIN else [one for one in level if type(one) in _BUILTIN]
        if max(map(len, sized), default=0) <= LARGE:
            return set()
        large = {id(one) for one in sized if len(one) > LARGE}
        special |= dict.fromkeys(large, False)
        return large


def _of_types(objects: Iterable[Any], types: set[type]) -> Iterator[Any]:
    """Return those of some objects that are of one of these exact types."""
    objects, others = tee(objects)
    return compress(objects, map(types.__contains__, map(type, others)))


def _is_anybodys(one: Any, kind: Kind, *, in_block: bool) -> bool:
    """Return whether it does not matter that an object is met again: a value, or what is a node of its own
    anyway.
    """
    if type(one) in _IMMUTABLE_BUILTIN or kind is Kind.RECORD:
        return _ATOMS.issuperset(map(type, one))
    return kind is Kind.FIXED or (kind is Kind.CODEC and codec.is_part(one, in_block=in_block))


def _is_reduced(cls: type) -> bool:
    """Return whether somebody has registered a reducer of a class; mori's own asks the one before it."""
    reducer = copyreg.dispatch_table.get(cls)
    return getattr(reducer, "usual", reducer) is not None


def _kind(cls: type) -> Kind:
    if cls in _BUILTIN:
        return Kind.BUILTIN
    if f"{cls.__module__}.{cls.__qualname__}" in _FIXED or issubclass(cls, (type, np.dtype)):
        return Kind.FIXED
    if issubclass(cls, np.generic):
        return Kind.OPAQUE if issubclass(cls, np.void) else Kind.FIXED  # fields can be written to
    by = codec.for_type(cls)
    if by is not None and not by.is_value:
        return Kind.CODEC
    if any(getattr(cls, name, None) is not getattr(object, name, None) for name in _REDUCING):
        return Kind.FIXED if issubclass(cls, enum.Enum) else Kind.OPAQUE
    if _is_reduced(cls) or hasattr(cls, "__getnewargs_ex__"):
        return Kind.OPAQUE
    if hasattr(cls, "__getnewargs__"):
        is_record = issubclass(cls, tuple) and hasattr(cls, "_fields") and not cls.__dictoffset__
        return Kind.RECORD if is_record else Kind.OPAQUE
    if issubclass(cls, (list, dict, set, frozenset, tuple, str, bytes, int, float, bytearray)):
        return Kind.OPAQUE
    return Kind.INSTANCE
