"""A file runs no code unless the caller of `load` allows it, whatever it says, and wherever it goes."""

from __future__ import annotations

import base64
import collections
import importlib
import os
import pickle
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
import pytest

import mori
from mori import adapters
from mori.format import writer
from mori.format.layout import Id, to_json
from mori.format.plain import PLAIN
from mori.format.plan import PlanNode, measure
from mori.store.base import NO_PICKLES
from mori.wire import reference

RAN: list[str] = []


def run(text: str = "run") -> str:
    RAN.append(text)
    return text


class Plain:
    def __init__(self, value: Any) -> None:
        self.value = value


class Runs:
    """Runs something when it is unpickled."""

    def __reduce__(self) -> Any:
        return run, ()


@pytest.fixture(autouse=True)
def nothing_runs() -> Any:
    RAN.clear()
    yield
    assert not RAN


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.mori"


def local() -> Callable[[], int]:
    return lambda: 1


@pytest.mark.parametrize(
    ("obj", "path_inside", "cls"),
    [
        (Plain(1), "obj", "test_saved_trust.Plain"),
        ({"model": Plain(1)}, "obj", "test_saved_trust.Plain"),
        ({"a": ["x"] * 10_000, "model": [Plain(i) for i in range(1000)]}, "obj['model']", "Plain"),
        ([["x"] * 10_000, {"k": Plain(np.arange(10_000))}], "obj", "Plain"),
        ([1, Runs()], "obj", "test_saved_trust.run"),
        (os.getcwd, "obj", "posix.getcwd"),
        (local(), "obj", "a function or class that a script defines"),
        (pd.DataFrame({"a": [1], "o": [Plain(1)]}), "", "Plain"),
        (np.array([Plain(1)], object), "obj", "Plain"),
        (collections, "obj", ""),
    ],
)
def test_what_is_no_plain_data_is_refused_and_named(obj, path_inside, cls, path, recwarn):
    mori.save(obj, path)
    with pytest.raises(mori.PickleNotAllowedError, match="allow_pickle=True") as error:
        mori.load(path)
    assert error.value.name == f"file:{path}"
    assert cls in error.value.cls
    assert not path_inside or error.value.path == path_inside.replace("obj", "obj")
    assert error.value.path in str(error.value)
    if cls != "test_saved_trust.run":
        assert type(mori.materialize(mori.load(path, allow_pickle=True))) is type(obj)


def test_what_was_shared_already_is_refused_and_named_too(path, views, nodes):
    obj = {"a": ["x"] * 10_000, "models": [1, 2, [Plain(i) for i in range(1000)]]}
    x = mori.share(obj)
    for one, where in ((x, "obj['models'][2]"), (x["models"], "obj[2]")):
        mori.save(one, path)
        with pytest.raises(mori.PickleNotAllowedError, match=re.escape(where)):
            mori.load(path)
    assert len(mori.load(path, allow_pickle=True)[2]) == 1000


def _conceal(path: Path) -> None:
    """Make a file say that it needs no pickles."""
    with open(path, "r+b") as file:
        nbytes = struct.unpack_from("<Q", file.read(64), 32)[0]
        file.seek(nbytes + 16)
        file.write(bytes(8))


def test_a_file_that_conceals_its_pickles_is_refused_when_they_are_met(path, views, nodes):
    mori.save({"a": ["x"] * 1000, "models": [Runs() for _ in range(1000)]}, path)
    _conceal(path)
    x = mori.load(path)
    assert x["a"][5] == "x"
    for read in (
        lambda: x["models"][5],
        lambda: mori.materialize(x),
        lambda: list(x["models"]),
        lambda: repr(x),
    ):
        with pytest.raises(mori.PickleNotAllowedError, match=r"part \[1\].*test_saved_trust.run"):
            read()


def test_the_refusal_goes_with_references_and_bytes(path, worker, views, nodes):
    mori.save({"a": ["x"] * 1000, "models": [Plain(i) for i in range(1000)]}, path)
    _conceal(path)
    refused, allowed = mori.load(path), mori.load(path, allow_pickle=True)

    def read(x: Any) -> str:
        try:
            return type(x["models"][5]).__name__
        except mori.PickleNotAllowedError:
            return "refused"

    def adopted(pickled: bytes) -> str:
        from mori.memory import region
        from mori.wire import reference

        arrived = [*reference._receivers]
        reference._receivers[:] = [region.adopt]
        try:
            x = pickle.loads(pickled)
            return type(x["models"][5]).__name__
        except mori.PickleNotAllowedError:
            return "refused"
        finally:
            reference._receivers[:] = arrived

    assert (worker(read, refused), worker(read, allowed)) == ("refused", "Plain")
    assert (read(mori.map_shared(mori.shared_name(refused))), read(allowed)) == ("Plain", "Plain")
    with mori.by_value():
        sent = [pickle.dumps(x, 5) for x in (refused, allowed, refused)]
    assert [worker(adopted, pickled) for pickled in sent] == ["refused", "Plain", "refused"]
    assert read(pickle.loads(sent[0])) == "refused"
    assert read(pickle.loads(pickle.dumps(refused))) == "refused"
    assert read(mori.writable(allowed)) == "Plain"
    with pytest.raises(mori.PickleNotAllowedError):
        mori.writable(refused)
    mori.save(refused, path)
    with pytest.raises(mori.PickleNotAllowedError):
        mori.load(path)


def _write(path: Path, stream: bytes, names: list[list[str]], flags: int = 4) -> None:
    """Write a file whose object is a stream of somebody's own making."""
    node = PlanNode(
        Id.PICKLE, to_json(["object", zlib.crc32(stream), flags, names]), [np.frombuffer(stream, "u1")]
    )
    node.close()
    writer.to_file(node, str(path))
    _conceal(path)


def _call(module: str, name: str, *arguments: Any) -> bytes:
    """Return a stream that calls a function."""
    head = (
        b"\x80\x05\x8c"
        + bytes([len(module)])
        + module.encode()
        + b"\x8c"
        + bytes([len(name)])
        + name.encode()
    )
    inner = pickle.dumps(arguments, 2)[2:-1]
    return head + b"\x93" + inner + b"R."


_HERE = ["tests.mori.test_saved_trust", "run"]
_BROUGHT = base64.b64encode(cloudpickle.dumps(Runs())).decode()


@pytest.mark.parametrize(
    ("stream", "names", "flags"),
    [
        (_call(*_HERE), [_HERE], 4),
        (_call(*_HERE), [], 4),
        (_call(*_HERE), [["builtins", "set"]], 4),
        (_call(*_HERE), [], 12),
        (_call("nowhere", "run"), [["nowhere", "run", _BROUGHT]], 4),
        (_call("datetime", "nothing"), [["datetime", "nothing", _BROUGHT]], 4),
        (_call("builtins", "getattr", "x", "upper"), [["builtins", "getattr"]], 4),
        (_call("builtins", "eval", "1"), [["builtins", "eval"]], 4),
        (_call("collections", "Counter.fromkeys", "x"), [["collections", "Counter.fromkeys"]], 4),
        (b"\x80\x05c" + "\n".join(_HERE).encode() + b"\n)R.", [["builtins", "set"]], 4),
        (b"\x80\x05(" + "\n".join(["i" + _HERE[0], _HERE[1]]).encode() + b"\n.", [["builtins", "set"]], 4),
    ],
)
def test_no_stream_calls_what_is_no_plain_data(stream, names, flags, path):
    _write(path, stream, names, flags)
    with pytest.raises((mori.PickleNotAllowedError, mori.CorruptRegionError)):
        mori.load(path)


_DTYPE = [["numpy", "dtype"]]


def _dtype(code: str, state: tuple[Any, ...]) -> bytes:
    arguments, state = (pickle.dumps(one, 5)[2:-1] for one in ((code, False, True), state))
    return b"\x80\x05\x8c\x05numpy\x8c\x05dtype\x93" + arguments + b"R" + state + b"b."


@pytest.mark.parametrize(
    ("code", "state"),
    [
        ("V8", (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0)),  # objects, and does not say so
        ("V8", (3, "|", None, ("a",), {"a": (np.dtype("f8"), 1 << 40)}, 8, 1, 16)),
        ("V8", (3, "|", None, ("a",), {"a": (np.dtype("f8"), -8)}, 8, 1, 16)),
        ("f8", (3, "<", None, None, None, 1 << 40, 1, 63)),
        ("O8", (3, "|", None, None, None, -1, -1, 0)),
        ("S5", (3, "|", None, None, None, 500, 1, 0)),
        ("V8", (3, "|", (np.dtype("O"), (1,)), None, None, 8, 1, 0)),
        ("M8", (4, "<", None, None, None, -1, -1, 0, (None, (b"\xff", 0, 0, 0)))),
        ("f8", (9,)),
        ("f8", None),
    ],
)
def test_no_stream_tells_numpy_what_is_not_true_of_a_dtype(code, state, path):
    names = [*_DTYPE]
    _write(path, _dtype(code, state), names)
    with pytest.raises(mori.CorruptRegionError, match="DType with the state"):
        mori.load(path)


@pytest.mark.parametrize(
    "state",
    [
        (1, (255,), np.dtype("O"), False, [1, "a"]),  # numpy would read beyond the list
        (1, (2,), np.dtype("O"), False, bytes(16)),
        (1, (255,), np.dtype("f8"), False, bytes(16)),
        (1, (-2,), np.dtype("f8"), False, bytes(16)),
        (1, (1 << 40,), np.dtype("V0"), False, [1]),
        (1, (2,), "O", False, [1, 2]),
        {"shape": (1 << 40,)},
    ],
)
def test_no_stream_tells_numpy_what_is_not_true_of_an_array(state, path):
    empty = b"\x8c\x16numpy._core.multiarray\x8c\x0c_reconstruct\x93\x8c\x05numpy\x8c\x07ndarray\x93"
    arguments = b"K\x00\x85C\x01b\x87R"
    stream = b"\x80\x05" + empty + arguments + pickle.dumps(state, 5)[2:-1] + b"b."
    _write(path, _without_frames(stream), [*map(list, PLAIN)])
    with pytest.raises(mori.CorruptRegionError, match="ndarray with the state"):
        mori.load(path)


def _without_frames(stream: bytes) -> bytes:
    """Return a stream that was put together of others, without their frames."""
    frame = stream.find(b"\x95")
    return stream if frame < 0 else stream[:frame] + stream[frame + 9 :]


@pytest.mark.parametrize(
    "dtype", ["f8", ">i4", "S5", "U3", "V7", "M8[3D]", "m8", "?", "O", "c16", "f4,(2,3)i2"]
)
def test_honest_dtypes_pass(dtype, path):
    for one in (np.dtype(dtype), np.dtype([("a", dtype), ("b", "u1")]), np.dtype([("a", dtype)], align=True)):
        mori.save([one, 1], path)
        assert mori.load(path) == [one, 1]


def test_plain_names_are_there_in_this_version():
    """Who looks for a name has it imported: nothing here may have side effects, so modules are few."""
    missing = []
    for module, name in sorted(one for one in PLAIN if not one[0].startswith("numpy.core")):
        try:
            found: Any = importlib.import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError):
            missing.append(module)
    assert {module.partition(".")[0] for module in missing} <= {"numpy", "pathlib", "pandas"}


# Checksums


def test_verify_finds_any_byte_that_was_changed(path):
    mori.save({"a": np.arange(400_000), "b": ["word"] * 1000}, path)
    whole = path.read_bytes()
    assert mori.load(path, verify=True)["a"][-1] == 399_999
    rng = np.random.default_rng(0)
    places = [0, 63, 64, len(whole) - 1, *rng.integers(0, len(whole), 40)]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(mori.CorruptRegionError):
            mori.load(path, verify=True)


def test_a_region_without_checksums_loads_and_cannot_be_verified(path):
    plan = measure([1, 2, 3])
    path.write_bytes(writer.to_bytes(plan, writer.header_of(plan, os.urandom(16), 1, 1)))
    assert mori.load(path) == [1, 2, 3]
    with pytest.raises(mori.CorruptRegionError, match="no checksums"):
        mori.load(path, verify=True)


def test_a_reference_from_a_file_keeps_its_refusal_when_cut_to_its_region(path):
    mori.save(["word"] * 10_000, path)
    for allow in (False, True):
        (payload,) = pickle_payload(mori.load(path, allow_pickle=allow))
        _, whole = reference.reference_to_region(payload)
        where, _ = reference.where_of(whole)
        assert (where.path, where.allows_pickles) == (str(path), allow)


def test_bytes_that_are_fetched_for_a_reference_keep_its_refusal(path):
    """As a node of Ray does that has not the file."""
    mori.save(["word"] * 10_000, path)
    refused, allowed = mori.load(path), mori.load(path, allow_pickle=True)
    payloads = [pickle_payload(x)[0] for x in (refused, allowed)]
    data = bytes(adapters.open_region(payloads[0]).bytes())
    arrived = [adapters.map_bytes_of(payload, data) for payload in payloads]
    assert [mapping.allows_pickles for mapping in arrived] == [False, True]
    copy = adapters.adopt(arrived[0])
    assert (copy.allows_pickles, copy.shared) == (False, True)
    assert adapters.find_copy(payloads[0]) is copy
    assert adapters.find_copy(payloads[1]) is None
    other = adapters.adopt(arrived[1])
    assert other.allows_pickles
    assert adapters.load_from(other, payloads[1])[5] == "word"
    assert copy.header.flags == NO_PICKLES


def pickle_payload(obj: Any) -> Any:
    from mori.wire.transport import use_transport

    with use_transport("reference"):
        return obj.__reduce_ex__(5)[1]
