"""Files: any object under a name in a file system, opened by mapping it.

A file is a region with checksums behind it, and its opening is that of any region.
"""

from __future__ import annotations

import os
from itertools import islice
from typing import Any

from mori._progress import Meter, shown
from mori.api import node_of, plan_of
from mori.errors import CorruptRegionError
from mori.format import layout, writer
from mori.format.node import Node, node_at, root_of
from mori.format.plain import first_name
from mori.memory import checksums, region
from mori.memory.checksums import Pickle
from mori.memory.mapping import Mapping
from mori.memory.parallel_write import Sink
from mori.objects.arrow_stream import is_stream, read, write_stream
from mori.objects.containers.small import Small
from mori.objects.containers.view import View
from mori.store.base import HEADER, PATH, Header, Where, format_name, pack_header, unpack_header
from mori.wire.reference import by_value
from mori.wire.transport import load_adapters

__all__ = ["load", "save", "verify"]

Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]


def save(obj: Any, path: Path, *, strings: str | None = None, progress: bool = False) -> None:
    """Write an object to a file, which `load` opens at once, whatever its size.

    Parameters
    ----------
    obj : object
        Anything that pickles; what is shared already is copied from its region. A stream of record batches is
        written batch by batch, as `share` does it.
    path : path_like
        Where to. A file that is there is replaced when the new one is whole: whoever has it open keeps
        what it had. A symbolic link stays, and the file that it leads to is replaced.
    strings : {None, "arrow"}
        As for `share`.
    progress : bool
        Show on stderr how far it is, if it takes longer than a second.

    Raises
    ------
    NotShareableError
        If a part of the object can be neither laid out nor pickled; it names the path to it.
    StoreFullError
        If the file system has no room.
    OSError
        If there can be no file of that name, as by ``open(path, "wb")``. Whatever is raised, what was there
        is there, and nothing else.

    Notes
    -----
    It is written beside its place under another name (``.mori-*.draft``), flushed to the disk, and renamed.
    A process that is killed meanwhile leaves that draft. The mode is what the umask leaves of 0666. Safe on
    any thread and in any number of processes: the last one to end has its file there.

    Examples
    --------
    >>> import mori, os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "words.mori")
    >>> mori.save({"a": 1, "b": [2, 3]}, path)
    >>> mori.load(path)["b"]
    [2, 3]
    """
    load_adapters()
    with shown(progress) as meter:
        _save(obj, os.path.realpath(os.fsdecode(path)), strings, meter)


def _save(obj: Any, path: str, strings: str | None, meter: Meter | None) -> None:
    if is_stream(obj):
        table, schema, batches = read(obj)
        if table is None:
            write_stream(schema, batches, path)
            return
        obj = table
    # Other shared objects are written from their region without a copy in between.
    node = node_of(obj) if isinstance(obj, View | Small) else None
    if node is None or node.mapping.is_r or node.record.flags & layout.REFERS_OUTSIDE:
        paths: list[str] = []
        plan = plan_of(obj, strings, paths.append)
        if meter is not None:
            meter.writing(writer.region_nbytes(plan))
        writer.to_file(plan, path, *paths[:1])
    else:
        if meter is not None:
            meter.writing(node.extent)
        _save_node(obj, node, path)


def _save_node(obj: Any, node: Node, path: str) -> None:
    """Copy a part of a region to a file."""
    _, (buffer, *head) = by_value(node, 5)
    data = buffer.raw()
    header = unpack_header(head[0] if head else data)
    assert isinstance(header, Header)
    start = node.offset - header.root  # in its own region

    def write(new: Header, put: Sink) -> Pickle:
        put(pack_header(new))
        put(data[HEADER.size :], borrowed=True)
        first = _first_pickle(node)
        return Pickle(0) if first is None else Pickle(first.offset - start, _path_to(first, node, obj))

    region.save(path, header.nbytes, write, header.root)


def _first_pickle(node: Node) -> Node | None:
    """Return the first node with a pickle that names more than plain data; None if there is none."""
    pending = [node]
    while pending:
        node = pending.pop()
        if first_name(node.record.codec, node.meta) is not None:
            return node
        pending += map(node.here, reversed(range(len(node))))
    return None


def load(path: Path, *, allow_pickle: bool = False, verify: bool = False) -> Any:
    """Open the object in a file that `save` wrote: mapped, and read when it is used.

    Parameters
    ----------
    path : path_like
        The file.
    allow_pickle : bool
        Whether what only its own code can put together again may be unpickled: an instance of a class that
        mori does not know, a function. That runs code which the file names, so allow it for files of those
        you trust. Without it, everything that is plain data loads: builtins, arrays, frames, dates and the
        like, in any nesting.
    verify : bool
        Read all of the file first, and compare it with its checksums.

    Returns
    -------
    object
        What `share` would have returned for what was saved. It is shared: its pickle is a reference to the
        file by its real path, and a process that unpickles it maps the file, too.

    Raises
    ------
    OSError
        If it cannot be opened, as by ``open(path, "rb")``.
    CorruptRegionError
        If it is no file of `save`, was cut off, or is damaged in what is read; with `verify`, in any byte.
    PickleNotAllowedError
        If it needs `allow_pickle`; it names the first part that does, and its class.

    Notes
    -----
    A file is any user's, and any program may write to it. So what is read is checked as bytes from
    elsewhere are. While it is mapped it may be replaced and removed, as `save` does; one that is cut off or
    overwritten in place ends the processes that read it (SIGBUS), as with any mapped file.

    Examples
    --------
    >>> import mori, numpy, os, pickle, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "numbers.mori")
    >>> mori.save(numpy.arange(1_000_000), path)
    >>> x = mori.load(path)
    >>> int(x.sum()), mori.is_shared(x), len(pickle.dumps(x, 5)) < 200
    (499999500000, True, True)
    """
    load_adapters()
    mapping = _mapped(path, allow_pickle)
    if verify:
        _verify(mapping)
    if not allow_pickle:
        _refuse_pickles(mapping)
    found = mapping.reopen(mapping.header.root)
    return root_of(mapping).open_first() if found is None else found


def verify(path: Path) -> int:
    """Read all of a file of `save` and compare it with its checksums; return the bytes of its region.

    Raises what `load` does, but looks for no pickles.
    """
    mapping = _mapped(path, allow_pickle=False)
    _verify(mapping)
    return mapping.nbytes


def _mapped(path: Path, allow_pickle: bool) -> Mapping:
    name = os.path.realpath(os.fsdecode(path))
    mapping = region.find(Where(0, 0, path=name, allows_pickles=allow_pickle), PATH)
    assert mapping is not None
    return mapping


def _fd(mapping: Mapping) -> int:
    assert mapping.lease is not None
    return mapping.lease.fd


def _verify(mapping: Mapping) -> None:
    if (fault := checksums.damaged(_fd(mapping), mapping.nbytes)) is not None:
        raise CorruptRegionError(name=format_name(mapping.name), found=fault)


def _refuse_pickles(mapping: Mapping) -> None:
    """Raise PickleNotAllowedError at once where the file says that it needs pickles.

    One that conceals it is found out by the reader of a node.
    """
    trailer = checksums.read_trailer(_fd(mapping), mapping.nbytes)
    if trailer is None or not trailer.pickle.offset:
        return
    node = node_at(mapping, trailer.pickle.offset)
    try:
        name = first_name(node.record.codec, node.meta)
    except Exception as error:
        raise node.decode_error(error) from error
    if name is not None:
        raise node.refused(name, trailer.pickle.path)


def _path_to(node: Node, top: Node, obj: Any) -> str:
    """Return how a user writes the way from an object, whose node is `top`, to a part."""
    name, start = node.name(), top.name()
    text, keys = "obj", list[Any]()
    for number in name.path[len(start.path) :] if name is not None and start is not None else ():
        for key in keys:  # of the step before: the last part is not opened
            obj = obj[key]
        keys = [next(islice(obj.keys(), number, None)) if hasattr(obj, "keys") else number]
        text += f"[{keys[0]!r}]"
    return text
