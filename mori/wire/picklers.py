"""Reducers for classes that are not mori's own, and the picklers in which they are registered.

- `np.ndarray`: an array whose memory lies in a mapped region (`np.asarray(x)`, a column, a view) goes as a
  reference, and arrives as a SharedArray.
- Classes of which an object was opened from a region: it goes as a reference while nobody has written to it.
- Classes that are put together of references, as frames are: unpickling one whose region is gone may not
  raise, since a pool would lose the task, and wait for it for ever.

The picklers are those of multiprocessing and loky, as soon as a region is mapped: `import mori` imports
neither. Once an adapter is there, all picklers know the second kind, for dumps whose transport is set.
"""

from __future__ import annotations

import copyreg
import pickle
import sys
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mori._imports import imported, importing
from mori.errors import MoriError
from mori.format import origins
from mori.format.node import root_of
from mori.memory.mapping import Mapping, address_of, byte_bounds, mapping_at
from mori.wire import messages, reference, transport
from mori.wire.compare import is_unchanged, unwritten

__all__ = ["guard", "reduce_array", "reduce_opened", "refer_in_engines", "register_picklers", "when_imported"]

_MULTIPROCESSING: Final = "multiprocessing.reduction"
_Reduce = Callable[[Any], Any]
_is_registered = False  # with the pickler of multiprocessing
_is_in_copyreg = False
_guarded: dict[type, Callable[[Any], bool]] = {}


def reduce_array(array: npt.NDArray[Any], protocol: int) -> Any:
    """Return what ``__reduce_ex__`` returns for a reference to an array's elements.

    None for an array in private memory, for one that reaches beyond one array of its region, and where
    pickles are to carry bytes.
    """
    if (mapping := _mapping_of(array)) is None or transport.is_by_value():
        return None
    if mapping.is_writable:
        if (source := mapping.original) is None or (unchanged := unwritten(array)) is None:
            return None
        array, mapping = unchanged, source
    if not mapping.shared:
        return None
    low, high = byte_bounds(array)
    try:
        node = root_of(mapping).under(low - mapping.address)
        starts = [(address_of(buffer), buffer.nbytes) for buffer in node.buffers()]
    except MoriError:  # what the bytes mean is the reader's to say
        return None
    if not any(start <= low and high <= start + nbytes for start, nbytes in starts):
        return None
    offset = address_of(array) - mapping.address
    view: Any = np.ndarray(array.shape, array.dtype, mapping.bytes(), offset, array.strides)
    shared = node.codec.wrap(node, view)
    if shared is None:
        return None
    function, arguments = shared.__reduce_ex__(protocol)[:2]
    return (function, arguments) if function is reference.load else None


def _mapping_of(array: npt.NDArray[Any]) -> Mapping | None:
    if array.dtype.hasobject or array.dtype.kind == "T" or not array.size:
        return None
    base: object = array
    while isinstance(base, np.ndarray):
        if base.flags.owndata:
            return None
        base = base.base
    if isinstance(base, Mapping):
        return base
    if isinstance(base, bytes):
        return None
    low, high = byte_bounds(array)
    return mapping_at(low, high - low)


def _reducer(protocol: int) -> Callable[[npt.NDArray[Any]], Any]:
    def reduce(array: npt.NDArray[Any]) -> Any:
        found = reduce_array(array, protocol)
        return array.__reduce_ex__(protocol) if found is None else found

    return reduce


def _unguard(pickled: bytes) -> Any:
    try:
        with reference.raising():
            make, arguments, state = pickle.loads(pickled)
        obj = make(*arguments)
        if state is not None:
            obj.__setstate__(state)
    except Exception as error:  # see `reference.load`
        return reference.lost_or_raise(error)
    return obj


def _guard_of(cls: type, protocol: int, dumps: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a reducer of a class: an object that refers to a region is pickled by itself, to fail alone."""

    def reduce(obj: Any) -> Any:
        plain = copyreg.dispatch_table.get(cls)
        reduced = obj.__reduce_ex__(protocol) if plain is None else plain(obj)
        if transport.is_by_value() or not _guarded[cls](obj):
            return reduced
        make, arguments, state = (*reduced, None)[:3]
        return _unguard, (bytes(dumps((make, arguments, state))),)

    return reduce


def reduce_opened(obj: Any) -> Any:
    """Return what ``__reduce_ex__`` returns for a reference to an object of a class that is not mori's.

    None where it is not one that was opened from a region, where it was written to since, and where pickles
    are to carry bytes.
    """
    node = origins.node_of(obj)
    if node is None or not (transport.is_by_value() or is_unchanged(node, obj)):
        return None
    if not transport.is_wanted(node.mapping):
        return None
    return reference.by_reference(node.mapping, node.offset)


def _refer(reducers: dict[type, _Reduce], cls: type, protocol: int, *, is_engine: bool) -> _Reduce:
    """Return a reducer of a class that refers to what was opened, and does as before with all else."""
    usual = reducers.get(cls)

    def reduce(obj: Any) -> Any:
        found = reduce_opened(obj) if not is_engine or transport.is_set() else None
        if found is not None:
            return found
        return obj.__reduce_ex__(protocol) if usual is None else usual(obj)

    reduce.usual = usual  # type: ignore[attr-defined]
    return reduce


def refer_in_engines() -> None:
    """Register with all picklers the classes of opened objects, for dumps whose transport is set."""
    global _is_in_copyreg
    if not _is_in_copyreg:
        _is_in_copyreg = True
        table = copyreg.dispatch_table
        origins.watch(
            lambda cls: copyreg.pickle(cls, _refer(table, cls, pickle.DEFAULT_PROTOCOL, is_engine=True))
        )


_picklers: list[Callable[[type], None]] = []


def _tell(
    register: Callable[..., Any],
    protocol: int,
    dumps: Callable[[Any], Any],
    reducers: dict[type, _Reduce],
) -> None:
    """Register plain arrays, and other classes now or later, with a pickler."""

    def guarded(cls: type) -> None:
        register(cls, _guard_of(cls, protocol, dumps))

    register(np.ndarray, _reducer(protocol))
    _picklers.append(guarded)
    for cls in [*_guarded]:
        guarded(cls)
    origins.watch(lambda cls: register(cls, _refer(reducers, cls, protocol, is_engine=False)))


def guard(refers: Callable[[Any], bool], *classes: type) -> None:
    """Make objects of these exact classes, where they refer to a region, unpickle without raising.

    What an engine cannot put together is a `Lost` object then, which says at its first use what is missing.
    """
    for cls in classes:
        _guarded[cls] = refers
        for tell in [*_picklers]:
            tell(cls)


_patches: Final[dict[str, Callable[[Any], object]]] = {}


def when_imported(name: str, patch: Callable[[Any], object]) -> None:
    """Call a function with a module, once, when a region is mapped and the module is there."""
    _patches[name] = patch


def register_picklers(is_new: bool) -> None:
    """Register with the picklers that are imported; creating a region imports that of multiprocessing."""
    global _is_registered
    # A reducer is not told the protocol: Python's own is what the first pickles with, 5 what the second.
    if not _is_registered and (is_new or _MULTIPROCESSING in sys.modules):
        with importing:
            from multiprocessing.reduction import ForkingPickler

        _tell(
            ForkingPickler.register,
            pickle.DEFAULT_PROTOCOL,
            ForkingPickler.dumps,
            ForkingPickler._extra_reducers,  # type: ignore[attr-defined]
        )
        setattr(ForkingPickler, "dump", messages.cover(ForkingPickler.dump))  # noqa: B010
        _is_registered = True  # now: until then another thread registers it, too
    for name in _patches.keys() & sys.modules.keys():
        if (module := imported(name)) is not None and (patch := _patches.pop(name, None)) is not None:
            patch(module)


def _patch_loky(module: Any) -> None:
    _tell(module.register, 5, module.dumps, module._dispatch_table)
    module.dump = messages.cover(module.dump)


def _patch_joblib(module: Any) -> None:
    if (cls := getattr(module, "ArrayMemmapForwardReducer", None)) is not None:
        _before_dumping(cls)


def _before_dumping(cls: Any) -> None:
    """Patch joblib's reducer, which writes large arrays to files, to refer to a region first."""
    usual = cls.__call__

    def call(self: Any, array: npt.NDArray[Any]) -> Any:
        found = reduce_array(array, 5) if type(array) is np.ndarray else None
        return usual(self, array) if found is None else found

    cls.__call__ = call


for _name in ("joblib.externals.loky.backend.reduction", "loky.backend.reduction"):
    when_imported(_name, _patch_loky)
when_imported("joblib._memmapping_reducer", _patch_joblib)
