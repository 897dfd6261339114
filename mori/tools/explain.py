"""`explain`: what `share` does with an object, part by part, and why; nothing is written.

It measures the object as `share` does, and reads off the plan, or the region of what is shared already, which
bytes are mapped and which have to be made anew in each process.
"""

from __future__ import annotations

import itertools
import pickle
import warnings
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any, Final, NamedTuple

from mori import api
from mori.errors import MoriError, ObjectColumnWarning, readable_size
from mori.format import origins
from mori.format.layout import Id
from mori.format.node import Node
from mori.format.plan import PlanNode, buffer_nbytes
from mori.objects.arrow_stream import is_stream
from mori.objects.containers.view import shown

__all__ = ["Explanation", "explain", "kind_of", "parts_of"]

_MOST: Final = 20  # parts that are looked at
_READ: Final = frozenset({Id.STRINGS, Id.PACKED, Id.BLOCKS})
_REFERENCE: Final = "about 100 bytes"


class Explanation(NamedTuple):
    """What `mori.explain` found out; printed, it is a small table."""

    kind: str
    """The class, and the length or the dtype and shape."""
    is_shared: bool
    """Whether it is shared already, or would be."""
    why: str
    """Why it is, is not, or only in part."""
    nbytes: int
    """Of its region; 0 without one."""
    mapped: int
    """Bytes that every process maps, and none copies."""
    read: int
    """Bytes that are decoded an element or a block at a time, when somebody asks for it."""
    unpickled: int
    """Bytes of pickles, from which each process that opens the object makes its own."""
    reference: int | None
    """Bytes of its pickle, once it is shared; None before, and where `pickle.dumps` writes no reference."""
    parts: tuple[tuple[str, Explanation], ...] = ()
    """The elements of a small container and the columns of a frame, the first of them."""

    def __repr__(self) -> str:
        lines = [f"{self.kind}: {self.why}"]
        if self.is_shared:
            reference = _REFERENCE if self.reference is None else f"{self.reference} bytes"
            nbytes = f"{readable_size(self.nbytes)} in its region, " if self.nbytes else ""
            lines += filter(str.strip, (f"  {nbytes}{reference} in a pickle", f"  {_split(self)}"))
        width = max((len(step) for step, _ in self.parts), default=0)
        for step, part in self.parts:
            lines.append(f"  {step:<{width}}  {part.kind}: {_split(part) or part.why}")
        return "\n".join(lines)


def _split(found: Explanation) -> str:
    pairs = (
        (found.mapped, "mapped"),
        (found.read, "decoded when read"),
        (found.unpickled, "unpickled when opened"),
    )
    return ", ".join(f"{readable_size(nbytes)} {how}" for nbytes, how in pairs if nbytes)


def explain(obj: Any, *, strings: str | None = None) -> Explanation:
    """Return what `share` does with an object, or did: what is shared, what is not, and why.

    Parameters
    ----------
    obj : object
        Anything, shared or not. It is measured as `share` measures it, and not written.
    strings : {None, "arrow"}
        As for `share`.

    Returns
    -------
    Explanation
        A named tuple that prints as a table: the bytes of the region, those that are mapped, decoded and
        unpickled, the bytes of the reference, and the same for the first parts of a small container or frame.

    Examples
    --------
    >>> import mori, numpy
    >>> mori.explain({"x": numpy.zeros(1000), "y": "text"})
    dict of 2: share writes it once, and it travels as a reference
      8.4 kB in its region, about 100 bytes in a pickle
      8.0 kB mapped, 68 B unpickled when opened
      ['x']  ndarray float64 (1000,): 8.0 kB mapped
      ['y']  str of 4: it goes with the object that it is in
    >>> mori.explain(print).is_shared
    False
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ObjectColumnWarning)
        found = _one(obj, strings)
        parts = parts_of(obj) if found.is_shared and _has_few(obj) else ()
        return found._replace(
            parts=tuple((step, _inside(part, strings)) for _, step, part in itertools.islice(parts, _MOST))
        )


def _has_few(obj: Any) -> bool:
    return hasattr(obj, "columns") or (hasattr(obj, "__len__") and len(obj) <= _MOST)


def _one(obj: Any, strings: str | None) -> Explanation:
    kind = kind_of(obj)
    node = api.node_of(obj)
    if node is not None and node.mapping.shared:
        why = f"shared, as {api.shared_name(obj) or 'a part of a region'}"
        mapped, read, unpickled = _sizes(node)
        if isinstance(nbytes := getattr(obj, "nbytes", None), int):
            mapped = min(mapped, nbytes)  # it may be one column of a node that has many
        # Plain pickle.dumps of an object of another library's class does what it always does.
        reference = len(pickle.dumps(obj, 5)) if origins.node_of(obj) is None else None
        return Explanation(kind, True, why, node.extent, mapped, read, unpickled, reference)
    if api.is_shared(obj):
        return Explanation(
            kind, True, "shared, as columns of a region", 0, 0, 0, 0, len(pickle.dumps(obj, 5))
        )
    if isinstance(obj, api._UNCHANGED):
        return Explanation(
            kind, False, "a value, which is its own pickle: share returns it as it is", 0, 0, 0, 0, None
        )
    if is_stream(obj):
        why = "a stream, which share reads and writes batch by batch: how much it is shows when it is read"
        return Explanation(kind, True, why, 0, 0, 0, 0, None)
    try:
        plan = api.plan_or_reason(obj, strings)
    except MoriError as error:
        return Explanation(kind, False, f"share raises: {error}", 0, 0, 0, 0, None)
    if isinstance(plan, str):
        return Explanation(kind, False, f"share returns it as it is: {plan}", 0, 0, 0, 0, None)
    sizes = _sizes(plan)
    why = "share writes it once, and it travels as a reference"
    if plan.codec == Id.PICKLE and not isinstance(obj, Mapping | Sequence | Set):
        why += ", while nobody writes to it; mori has no codec for its class, so each process unpickles it"
    return Explanation(kind, True, why, plan.extent, *sizes, None)


def _inside(obj: Any, strings: str | None) -> Explanation:
    found = _one(obj, strings)
    return found if found.is_shared else found._replace(why="it goes with the object that it is in")


def _sizes(root: PlanNode | Node) -> tuple[int, int, int]:
    """Return the bytes that are mapped, decoded and unpickled."""
    mapped = read = unpickled = 0
    nodes: list[Any] = [root]
    while nodes:
        node = nodes.pop()
        if isinstance(node, Node):
            number, buffers = node.record.codec, list(node.buffers())
            children: list[Any] = [node.child(place) for place in range(len(node))]
        else:
            number, buffers, children = node.codec, list(node.buffers), node.children
        nodes += [child for child in children if not child.is_alias]
        sizes = [*map(buffer_nbytes, buffers)]
        if number == Id.PICKLE:
            unpickled += sum(sizes[:1])
            mapped += sum(sizes[1:])
        elif number in _READ:
            read += sum(sizes)
        else:
            mapped += sum(sizes)
    return mapped, read, unpickled


def kind_of(obj: Any) -> str:
    """Return what a user calls an object: its class, and its dtype and shape or its length."""
    cls = type(obj)
    own = getattr(cls, "_kind", None) or getattr(cls, "_ordinary", None) or cls
    name = own.__name__.removeprefix("Shared")
    if own.__module__.partition(".")[0] not in ("builtins", "numpy", "pandas", "mori"):
        name = f"{own.__module__.partition('.')[0]}.{name}"
    shape = getattr(obj, "shape", None)
    if type(shape) is tuple:
        return " ".join(map(str, (name, *([obj.dtype] if hasattr(obj, "dtype") else []), shape)))
    return f"{name} of {len(obj):,}" if hasattr(cls, "__len__") else name


def parts_of(obj: Any) -> Iterator[tuple[int, str, Any]]:
    """Yield the parts that have names: their number, the step to them, and themselves."""
    if hasattr(obj, "columns") and hasattr(obj, "iloc"):
        for number, column in enumerate(obj.columns):
            yield number, f"[{shown(column)}]", obj.iloc[:, number]
    elif isinstance(obj, Mapping):
        for number, (key, value) in enumerate(obj.items()):
            yield number, f"[{shown(key)}]", value
    elif isinstance(obj, list | tuple) or getattr(type(obj), "_kind", None) in (list, tuple):
        for number, value in enumerate(obj):
            yield number, f"[{number}]", value
