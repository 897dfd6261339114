"""`check_codec`: what a codec has to keep, tried on objects; for the tests of those who write one.

Each rule that is broken is an AssertionError that says which, and for which object.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import os
import pickle
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np

from mori.api import by_value as by_value_
from mori.api import frombuffer, is_shared, materialize, share, shared_name
from mori.errors import CorruptRegionError, MoriError
from mori.format import codec, writer
from mori.format.codec import Encoded, Joined
from mori.format.node import open_node, root_of
from mori.format.plan import PlanNode, measure
from mori.memory import lease
from mori.memory.mapping import live, map_bytes
from mori.store.base import ALIGNMENT, SMALL_ALIGNMENT

__all__ = ["check_codec"]

Equal = Callable[[Any, Any], bool]

_SLACK: Final = 16 << 20  # bytes that opening damaged bytes may take beyond the region's own
_FLIPPED: Final = 200  # bytes of a meta and of each buffer that are tried
_CHILD: Final = """
import importlib, pickle, sys
import mori
if sys.argv[1] != "__main__":
    importlib.import_module(sys.argv[1])
again = mori.share([mori.map_shared(sys.argv[2])[0]])
with mori.by_value():
    sys.stdout.buffer.write(pickle.dumps(again, 5))
"""


def check_codec(codec_: Any, objects: Iterable[Any], *, equal: Equal | None = None) -> None:
    """Try a codec on objects, and raise an AssertionError for the first rule that it breaks.

    Parameters
    ----------
    codec_ : object
        The codec, registered for the types of the objects (`mori.register_codec`).
    objects : iterable
        Objects that it takes: empty ones, large ones, every kind of content there is.
    equal : callable, optional
        Says whether two objects are equal, attributes and all. By default their encodings are compared,
        and the objects themselves where their class says what equality is; an attribute that `encode`
        forgets is not noticed then.

    Notes
    -----
    The rules: ``encode`` leaves the object as it was and gives the same each time; ``decode`` gives back
    an equal object of the same class, from either store, by value, at any alignment, in another process;
    it leaves its buffers as they are; damaged meta, buffers and children give a CorruptRegionError or
    another object that can be printed, never a crash or more memory than there are bytes; nothing
    stays alive when the object goes.

    Two processes are started for each object. They import the module of the codec's class, which has to
    register it; a class of ``__main__`` needs an entry point.
    """
    for number, obj in enumerate(objects):
        rules = _Rules(codec_, obj, f"object {number}, a {type(obj).__qualname__}", equal)
        rules.check_encoding()
        rules.check_stores()
        rules.check_buffers()
        rules.check_damage()


class _Rules:
    """The rules for one object."""

    def __init__(self, codec_: Any, obj: Any, what: str, equal: Equal | None) -> None:
        self.codec = codec_
        self.obj = obj
        self.what = what
        self.equal = equal

    def need(self, holds: bool, rule: str) -> None:
        """Raise an error for a rule that is not kept."""
        if not holds:
            raise AssertionError(f"{self.what}: {rule}")

    def same(self, got: Any) -> bool:
        """Return whether what came back is the object."""
        if type(got) is not type(self.obj):
            got = materialize(got)
        if type(got) is not type(self.obj):
            return False
        if self.equal is not None:
            return bool(self.equal(got, self.obj))
        if _bytes_of(got) != _bytes_of(self.obj):
            return False
        if isinstance(got, np.ndarray | list | tuple | dict):
            return True
        said = got == self.obj
        return said if isinstance(said, bool) else True

    def check_encoding(self) -> None:
        """Check what encode returns."""
        by = codec.for_type(type(self.obj))
        self.need(by is self.codec, "the codec is not registered for its type; call mori.register_codec")
        before = copy.deepcopy(self.obj)
        encoded = self.codec.encode(self.obj)
        self.need(isinstance(encoded, Encoded), f"encode has to return a mori.Encoded, not {encoded!r}")
        self.need(type(encoded.meta) is bytes, f"the meta has to be bytes, not {type(encoded.meta).__name__}")
        for buffer in encoded.buffers:
            pieces = buffer if isinstance(buffer, Sequence | Joined) else (buffer,)
            for piece in pieces:
                is_array = isinstance(piece, np.ndarray) and not piece.dtype.hasobject
                self.need(is_array, "a buffer has to be an ndarray without objects, or a sequence of them")
        first = _bytes_of(self.obj)
        self.need(first == _bytes_of(self.obj), "encode has to give the same each time")
        self.need(self.same(before), "encode has to leave the object as it was")

    def check_stores(self) -> None:
        """Check the round trip through each store, by value, and through another process."""
        with tempfile.TemporaryDirectory() as directory:
            settings = [f"files:{directory}"]
            if sys.platform == "linux" and hasattr(os, "memfd_create"):
                settings.append("memfd")
            for setting in settings:
                with _store(setting):
                    alive = len(live())
                    self.check_store(setting)
                    gc.collect()
                    lease.expire_graces()
                    left = len(live()) - alive
                    self.need(left <= 0, f"the region stays alive when the object has gone ({setting})")

    def check_store(self, setting: str) -> None:
        """Check the round trip through one store."""
        shared = share([self.obj])
        self.need(is_shared(shared), "sharing it has to make a region")
        self.need(
            self.same(shared[0]), f"decode has to give back an equal object of its class (store {setting})"
        )
        with by_value_():
            data = pickle.dumps(shared, 5)
        self.need(self.same(pickle.loads(data)[0]), "by value, decode has to give back an equal object")
        reshared = share([shared[0]])
        self.need(self.same(reshared[0]), "an object that was decoded has to be encoded again")
        name = shared_name(shared)
        assert name is not None
        command = [sys.executable, "-c", _CHILD, type(self.codec).__module__, name]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        done = subprocess.run(command, capture_output=True, env=environment, check=False)
        said = done.stderr.decode(errors="replace")[-2000:]
        self.need(done.returncode == 0, f"another process has to open it and share it again; it said\n{said}")
        self.need(self.same(pickle.loads(done.stdout)[0]), "another process has to decode an equal object")

    def check_buffers(self) -> None:
        """Check what decode does with its buffers."""
        data = _bytes_of(self.obj)
        for shift in (0, 8, 1):
            buffer = np.zeros(len(data) + 64 + shift, np.uint8)
            start = -buffer.ctypes.data % 64 + shift
            buffer[start : start + len(data)] = np.frombuffer(data, np.uint8)
            got = frombuffer(memoryview(buffer)[start : start + len(data)])
            self.need(
                self.same(got), f"decode has to do with buffers at any multiple of 8 (shifted by {shift})"
            )
            is_unchanged = buffer[start : start + len(data)].tobytes() == data
            self.need(is_unchanged, "decode has to leave its buffers as they are")

    def check_damage(self) -> None:
        """Check what decode makes of bytes that encode did not write."""
        for how, plan in self.damaged():
            data = _to_bytes(plan)
            tracemalloc.start()
            try:
                repr(open_node(root_of(map_bytes(data))))
            except CorruptRegionError as error:
                taken = isinstance(error.__cause__, MemoryError)
                self.need(not taken, f"decode must not allocate by a number that it has not compared ({how})")
            except MoriError:
                pass
            except Exception as error:
                raise AssertionError(
                    f"{self.what}: what decode makes of damaged bytes has to be an object that is "
                    f"printable, or an error of decode itself; repr raised {type(error).__name__}: {error} "
                    f"({how})"
                ) from error
            finally:
                peak = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
            self.need(peak < len(data) + _SLACK, f"decode took {peak} bytes for {len(data)} ({how})")

    def damaged(self) -> Iterator[tuple[str, PlanNode]]:
        """Yield plans of the object that are wrong in one place, under right checksums."""
        own = self.codec.encode(self.obj)
        head = len(measure(self.obj).meta) - len(own.meta)
        metas = [own.meta[:-1], own.meta + b"\0", b"", b"\xff" * len(own.meta)]
        for place in _places(len(own.meta)):
            for bit in (0, 6, 7):
                changed = bytearray(own.meta)
                changed[place] ^= 1 << bit
                metas.append(bytes(changed))
        for meta in metas:
            plan = measure(self.obj)
            plan.meta = plan.meta[:head] + meta
            yield f"meta {meta[:60]!r}", _closed(plan)
        for place, buffer in enumerate(own.buffers):
            data = _joined(buffer)
            wrong = [data[:-1], np.zeros(0, np.uint8), ~data, np.append(data, np.zeros(8, np.uint8))]
            for spot in _places(len(data)):
                changed_data = data.copy()
                changed_data[spot] ^= 0x80
                wrong.append(changed_data)
            for other in wrong:
                plan = measure(self.obj)
                plan.buffers = [*plan.buffers[:place], other, *plan.buffers[place + 1 :]]
                yield f"buffer {place}", _closed(plan)
        if own.buffers:
            plan = measure(self.obj)
            plan.buffers = plan.buffers[:-1]
            yield "a buffer less", _closed(plan)
        if own.children:
            plan = measure(self.obj)
            plan.children.pop()
            yield "a child less", _closed(plan)
            for place in range(min(len(own.children), 20)):
                for other in (None, "text", np.arange(3)):
                    plan = measure(self.obj)
                    plan.children[place] = measure(other)
                    yield f"child {place} is {other!r}", _closed(plan)


def _places(nbytes: int) -> Sequence[int]:
    return range(0, nbytes, max(1, nbytes // _FLIPPED))


def _joined(buffer: Any) -> Any:
    pieces = buffer if isinstance(buffer, Sequence | Joined) else (buffer,)
    return np.frombuffer(b"".join(piece.tobytes("A") for piece in pieces), np.uint8).copy()


def _closed(plan: PlanNode) -> PlanNode:
    """Place everything in a plan anew."""
    plan.table = []
    plan.alignment = ALIGNMENT if plan.buffers else SMALL_ALIGNMENT
    plan.close()
    return plan


def _to_bytes(plan: PlanNode) -> bytes:
    return bytes(writer.to_bytes(plan, writer.header_of(plan)))


def _bytes_of(obj: Any) -> bytes:
    return _to_bytes(measure(obj))


@contextlib.contextmanager
def _store(setting: str) -> Iterator[None]:
    before = os.environ.get("MORI_STORE")
    os.environ["MORI_STORE"] = setting
    try:
        yield
    finally:
        del os.environ["MORI_STORE"]
        if before is not None:
            os.environ["MORI_STORE"] = before
