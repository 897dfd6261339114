"""Codecs of third parties: registered or found by entry point, read by name, held to the rules."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import pickle
import re
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mori
from mori.format import codec
from mori.format.node import open_node, root_of
from mori.format.plan import measure
from mori.memory import mapping as mappings
from mori.testing import check_codec
from tests.mori.pandas_versions import NAN_STRINGS
from tests.regions import bytes_of

_DOC = Path(__file__).parents[2] / "docs" / "codecs.md"
_EXAMPLES = re.findall(r"^```python\n(.*?)^```$", _DOC.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


class Track:
    """Points with a title; does not pickle."""

    def __init__(self, title: str, points: Any, extra: Any = None) -> None:
        self.title = title
        self.points = points
        self.extra = extra

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("a Track does not pickle")

    def __deepcopy__(self, memo: Any) -> Track:
        return Track(self.title, self.points.copy(), self.extra)


def equal(one: Track, other: Track) -> bool:
    return one.title == other.title and np.array_equal(one.points, other.points) and one.extra == other.extra


class TrackCodec(mori.Codec):
    name = "tests.track"

    def encode(self, obj: Track) -> mori.Encoded | None:
        return mori.Encoded(obj.title.encode(), [obj.points], [obj.extra])

    def decode(self, meta: bytes, buffers: mori.Buffers, children: Sequence[Any]) -> Track:
        (data,), (extra,) = buffers, children
        if data.nbytes % 16:
            raise ValueError("half a point")
        return Track(meta.decode(), data.view("<f8").reshape(-1, 2), extra)

    def step(self, obj: Track, index: int) -> str:
        return ".extra"


CODEC = TrackCodec()
mori.register_codec(CODEC, Track)


def _track(n: int = 10) -> Track:
    return Track("ä", np.arange(2.0 * n).reshape(n, 2), "x")


def test_an_object_of_a_registered_class_is_shared_by_its_codec(store: str, worker: Any) -> None:
    track = _track()
    shared = mori.share(track)
    assert type(shared) is Track
    assert equal(shared, track)
    assert mori.is_shared(shared)
    assert mori.share(shared) is shared
    assert not shared.points.flags.writeable
    assert mappings.held_by(shared.points) is not None
    name = mori.shared_name(shared)

    def read(name: str, module: str) -> float:
        importlib.import_module(module)  # where its codec is registered
        return float(mori.map_shared(name).points.sum())

    assert worker(read, name, __name__) == track.points.sum()
    private = mori.materialize(shared)
    assert equal(private, track)
    assert mappings.held_by(private.points) is None
    assert private.points.flags.writeable


def test_it_may_stand_in_containers_and_in_objects_that_are_pickled(store: str) -> None:
    shared = mori.share({"t": [_track()], "o": Holder(_track())})
    assert equal(shared["t"][0], _track())
    assert equal(shared["o"].track, _track())
    assert mori.shared_name(shared["t"][0]) is not None


@pytest.mark.parametrize("extra", [[f"word {i}" for i in range(100)], {f"word {i}": i for i in range(100)}])
def test_one_with_parts_that_are_written_late_travels_as_a_reference_when_it_was_read(extra: Any) -> None:
    made = _track()
    made.extra = extra
    shared = mori.share([made, made.points.copy()])
    held = shared[0]
    assert held.extra == extra
    assert len(pickle.dumps(shared)) <= 100
    held.extra = {**extra, "word 5": 6} if isinstance(extra, dict) else [*extra[:-1], "other"]
    with pytest.raises(TypeError, match="does not pickle"):
        pickle.dumps(shared)


class Holder:
    def __init__(self, track: Track) -> None:
        self.track = track


def test_the_way_to_a_part_is_as_the_codec_writes_it(store: str) -> None:
    with pytest.raises(mori.NotShareableError) as caught:
        mori.share([Track("t", np.zeros((1, 2)), extra=(number for number in [1]))])
    assert caught.value.path == "obj[0].extra"


def test_the_meta_is_name_and_own_meta() -> None:
    plan = measure(_track())
    assert plan.codec == 0
    assert plan.meta == struct.pack("<H", 11) + b"tests.track" + "ä".encode()


def _renamed(name: bytes, length: int | None = None) -> bytes:
    plan = measure(_track())
    plan.meta = struct.pack("<H", len(name) if length is None else length) + name
    return bytes_of(plan)


def test_a_codec_that_is_missing_is_named() -> None:
    with pytest.raises(ImportError, match=r"nowhere\.grid.*entry point") as caught:
        mori.frombuffer(_renamed(b"nowhere.grid"))
    assert caught.value.name == "nowhere"


@pytest.mark.parametrize(
    ("name", "length"),
    [
        (b"", None),
        (b"os;x", None),
        (b"../x", None),
        (b"\xff", None),
        (b"a" * 300, None),
        (b"tests", 9999),
        (b"a b", 3),
    ],
)
def test_a_name_that_is_none_is_damage(name: bytes, length: int | None) -> None:
    before = {*sys.modules}
    with pytest.raises((mori.CorruptRegionError, ImportError)) as caught:
        open_node(root_of(mappings.map_bytes(_renamed(name, length))))
    assert type(caught.value) is mori.CorruptRegionError or name == b"tests"
    assert not {*sys.modules} - before


@pytest.mark.parametrize("name", ["", "a b", ".x", "x.", "1a", "x" * 256, None, b"x"])
def test_a_name_that_cannot_be_one_is_refused(name: Any) -> None:
    other = TrackCodec()
    other.name = name
    with pytest.raises(ValueError, match="cannot be the name"):
        mori.register_codec(other)


def test_what_mori_has_a_codec_for_is_not_given_to_another() -> None:
    other = TrackCodec()
    other.name = "tests.other"
    with pytest.raises(ValueError, match="already"):
        mori.register_codec(other, np.ndarray)


_PACKAGE = """
import numpy as np
class Grid:
    def __init__(self, a):
        self.a = a
"""
_SHARED = """
import mori, grids9
class GridCodec(mori.Codec):
    name = "grids9.grid"
    def encode(self, obj):
        return mori.Encoded(b"", [obj.a])
    def decode(self, meta, buffers, children):
        return grids9.Grid(buffers[0].view("i8"))
mori.register_codec(GridCodec(), grids9.Grid)
"""


def _install(directory: Path, shared: str) -> dict[str, str]:
    (directory / "grids9.py").write_text(_PACKAGE)
    (directory / "grids9_shared.py").write_text(shared)
    info = directory / "grids9-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: grids9\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[mori.codecs]\ngrids9.grid = grids9_shared\n")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(directory), str(_DOC.parents[1])])}


def _run(code: str, environment: dict[str, str], *args: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *args], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_a_codec_is_found_by_its_entry_point(store: str, tmp_path: Path) -> None:
    directory = tmp_path / "site"
    directory.mkdir()
    environment = _install(directory, _SHARED)
    code = (
        "import sys, subprocess, numpy, mori\n"
        "mori.share([{1}, numpy.arange(3)])\n"
        "assert 'grids9_shared' not in sys.modules\n"
        "import grids9\n"
        "x = mori.share(grids9.Grid(numpy.arange(5)))\n"
        "assert mori.is_shared(x) and 'grids9_shared' in sys.modules\n"
        "read = 'import sys, mori; print(mori.map_shared(sys.argv[1]).a.sum())'\n"
        "print(subprocess.run([sys.executable, '-c', read, mori.shared_name(x)],"
        "capture_output=True, text=True))"
    )
    assert r"stdout='10\n'" in _run(code, environment)


def test_threads_that_meet_a_class_while_its_codec_is_loaded_wait_for_it(tmp_path: Path) -> None:
    directory = tmp_path / "site"
    directory.mkdir()
    environment = _install(directory, "import time; time.sleep(0.3)\n" + _SHARED)
    code = (
        "import threading, time, numpy, mori, grids9\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from mori.format import origins\n"
        "def share(wait):\n"
        "    time.sleep(wait)\n"
        "    return mori.share(grids9.Grid(numpy.arange(500)))\n"
        "with ThreadPoolExecutor(4) as pool:\n"
        "    print([origins.node_of(x).record.codec for x in pool.map(share, (0, 0.1, 0.1, 0.2))])"
    )
    assert _run(code, environment).strip() == "[0, 0, 0, 0]"


def test_an_entry_point_that_cannot_be_loaded_is_a_warning(tmp_path: Path) -> None:
    directory = tmp_path / "site"
    directory.mkdir()
    environment = _install(directory, "raise RuntimeError('broken')")
    code = (
        "import numpy, mori, grids9\n"
        "for _ in range(2):\n    x = mori.share(grids9.Grid(numpy.arange(500)))\n"
        "print(mori.is_shared(x.a))"
    )
    said = _run(code, environment)
    assert "True" in said
    assert said.count("'grids9.grid' (grids9_shared) cannot be loaded") == 1


def test_the_examples_of_the_documentation_run(tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text("\n".join(_EXAMPLES), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(_DOC.parents[1])}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == re.findall(r"print\(.*\)  # (.*)$", "".join(_EXAMPLES), re.MULTILINE)


@pytest.mark.timeout(180)  # it starts a number of interpreters
def test_a_codec_that_keeps_the_rules_passes() -> None:
    check_codec(CODEC, [_track(), _track(0), Track("", np.ones((5000, 2)), [1, "a"])], equal=equal)


OWN = {
    "array": lambda: [np.arange(12.0).reshape(3, 4), np.zeros((0, 2), "i4")],
    "structured": lambda: [np.array([(1, 2.5)], [("a", "u1"), ("b", "f8")])],
    "series": lambda: [pd.Series([1.0, 2.0], name="v")],
    "frame": lambda: [pd.DataFrame({"a": [1, 2], "s": pd.array(["x", None], NAN_STRINGS)})],
    "index": lambda: [pd.Index([3, 4], name="i"), pd.RangeIndex(3)],
    "categories": lambda: [pd.Categorical(["a", "b", "a"])],
}


# Each starts two interpreters for each object; an array and a frame stand for the others.
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind in ("array", "frame") else pytest.mark.slow) for kind in OWN]
)
def test_codecs_of_mori_keep_the_rules(kind: str) -> None:
    for obj in OWN[kind]():
        by = codec.for_type(type(obj))
        same = (lambda a, b: a.equals(b)) if hasattr(obj, "equals") else None
        check_codec(by, [obj], equal=same)


def _broken(**methods: Any) -> Any:
    """Return the codec with something else done."""
    cls = type("Broken", (TrackCodec,), methods)
    cls.__module__ = __name__
    return cls()


def _forgets(self: Any, meta: bytes, buffers: Any, children: Any) -> Track:
    track = TrackCodec.decode(self, meta, buffers, children)
    track.title = ""
    return track


def _changes(self: Any, obj: Track) -> Any:
    obj.title += "!"
    return TrackCodec.encode(self, obj)


def _trusts(self: Any, meta: bytes, buffers: Any, children: Any) -> Any:
    bytes(8 * meta[0] << 20)
    return TrackCodec.decode(self, meta, buffers, children)


_KEPT: list[Any] = []


def _keeps(self: Any, meta: bytes, buffers: Any, children: Any) -> Any:
    track = TrackCodec.decode(self, meta, buffers, children)
    _KEPT.append(track)
    return track


@pytest.mark.parametrize(
    ("methods", "rule"),
    [
        ({"decode": _forgets}, "decode has to give back an equal object"),
        ({"encode": _changes}, "encode has to "),
        ({"encode": lambda self, obj: (b"", [], [])}, "return a mori.Encoded"),
        ({"encode": lambda self, obj: mori.Encoded("text", [])}, "meta has to be bytes"),  # type: ignore[arg-type]
        ({"encode": lambda self, obj: mori.Encoded(b"", [b"x"])}, "a buffer has to be an ndarray"),  # type: ignore[list-item]
        ({"decode": _trusts}, "decode took"),
        ({"decode": _keeps}, "stays alive"),
        ({"decode": lambda self, meta, buffers, children: None}, "decode has to give back an equal object"),
    ],
    ids=["forgets", "changes", "no Encoded", "text", "no array", "trusts", "keeps", "None"],
)
def test_a_rule_that_is_broken_is_named(methods: dict[str, Any], rule: str) -> None:
    broken = _broken(**methods)
    mori.register_codec(broken, Track)
    try:
        with pytest.raises(AssertionError, match=rule):
            check_codec(broken, [Track("t" * 9, np.arange(8.0).reshape(4, 2), "x")], equal=equal)
    finally:
        _KEPT.clear()
        mori.register_codec(CODEC, Track)


def test_a_codec_that_nobody_registered_is_said() -> None:
    with pytest.raises(AssertionError, match="not registered"):
        check_codec(TrackCodec(), [_track()])


def test_the_group_of_entry_points_is_the_documented_one() -> None:
    assert f'[project.entry-points."{codec_group()}"]' in _DOC.read_text(encoding="utf-8")
    assert isinstance(importlib.metadata.entry_points(group=codec_group()), Sequence | tuple)


def codec_group() -> str:
    from mori.codecs import named

    return named.GROUP


def test_encoded_pickles() -> None:
    assert pickle.loads(pickle.dumps(mori.Encoded(b"x"))) == mori.Encoded(b"x")


class Odd:
    """Its class has no name of a module, as that of Cython's functions."""

    def __reduce__(self) -> Any:
        return int, (7,)


Odd.__module__ = property(lambda self: "somewhere")  # type: ignore[assignment]


def test_a_class_without_the_name_of_a_module_goes_by_pickle() -> None:
    shared = mori.share([Odd(), {"k": Odd()}, np.arange(3)])
    assert shared[0] == 7
    assert shared[1]["k"] == 7


class Tagged:
    def __init__(self, parts: Any) -> None:
        self.parts = parts


class TaggedCodec(mori.Codec):
    name = "tests.tagged"

    def encode(self, obj: Tagged) -> mori.Encoded:
        tags = ["a", "b"]  # one list in two small dicts, another at each call
        return mori.Encoded(b"", (), ({"x": tags}, {"y": tags}))

    def decode(self, meta: bytes, buffers: mori.Buffers, children: Any) -> Tagged:
        return Tagged(list(children))


mori.register_codec(TaggedCodec(), Tagged)


def test_children_that_are_made_anew_at_each_call_are_measured_in_the_end() -> None:
    (tagged,) = mori.share([Tagged(None)])
    assert [dict(part) for part in tagged.parts] == [{"x": ["a", "b"]}, {"y": ["a", "b"]}]
