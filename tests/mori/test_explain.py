"""`explain` says what `share` does, and nothing is written by asking; reprs and dir() stay short."""

import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import mori
import mori_dask
import mori_ray


class Forest:
    def __init__(self) -> None:
        self.trees = {number: {number + 1: {}} for number in range(1000)}


def test_it_tells_what_is_mapped_from_what_is_unpickled() -> None:
    frame = pd.DataFrame({"number": np.arange(1000.0), "any": pd.Series([{1: 2}] * 1000, dtype=object)})
    found = mori.explain({"frame": frame, "words": [f"word {i}" for i in range(5000)], "short": "text"})
    assert os.getpid() not in {entry.owner for entry in mori.regions()}
    assert (found.is_shared, found.reference) == (True, None)
    parts = dict(found.parts)
    assert parts["['frame']"].mapped >= 8000
    assert parts["['words']"].unpickled == 0
    assert parts["['frame']"].unpickled > 0
    assert parts["['words']"].read >= 20_000
    assert not parts["['short']"].is_shared
    columns = dict(mori.explain(frame).parts)
    assert (columns["['number']"].unpickled, columns["['any']"].mapped) == (0, 0)


def test_of_a_shared_object_it_tells_its_name_and_reference() -> None:
    shared = mori.share(pd.DataFrame({"a": np.arange(1000.0)}))
    found = mori.explain(shared)
    assert mori.shared_name(shared) in found.why
    assert found.reference is not None
    assert found.reference <= 100
    assert 8000 <= found.mapped < 8100  # with the name of the column


def test_a_column_of_a_block_is_not_taken_for_the_block() -> None:
    shared = mori.share(pd.DataFrame(np.ones((1000, 5)), columns=list("abcde")))
    assert {part.mapped for _, part in mori.explain(shared).parts} == {8000}


@pytest.mark.parametrize(
    ("obj", "why"),
    [
        (3, "a value"),
        (print, "a value"),
        (iter([]), "share returns it as it is"),
        ([open], "travels as a reference"),
        ([(i for i in [])], "share raises: cannot share obj[0]"),
        (object(), "nothing in it can be mapped"),
    ],
)
def test_it_says_why_something_is_not_shared(obj: object, why: str) -> None:
    assert why in str(mori.explain(obj))


def test_a_stream_is_told_as_one_and_not_read() -> None:
    schema = pa.schema({"n": pa.int64()})
    batches = (pa.record_batch([[number]], schema) for number in range(3))
    stream = pa.RecordBatchReader.from_batches(schema, batches)
    found = mori.explain(stream)
    assert (found.is_shared, "batch by batch" in found.why) == (True, True)
    assert " 0 B" not in repr(found)
    assert mori.share(stream)["n"].to_pylist() == [0, 1, 2]


def test_it_says_that_a_class_without_a_codec_is_unpickled_in_each_process() -> None:
    found = mori.explain(Forest())
    assert found.is_shared
    assert "mori has no codec for its class" in found.why
    assert found.unpickled > found.mapped == 0


@pytest.mark.parametrize(
    "plain",
    [
        {i: np.arange(900).reshape(30, 30) for i in range(200)},
        [b"x" * 100_000] * 100,
        [{"key": "v" * 5000} for _ in range(1000)],
        [(1, "s" * 5000) for _ in range(1000)],
        [[[*range(500)]] * 3 for _ in range(100)],
        [pd.DataFrame({"a": [1] * 50})] * 100,
        [{i: {j: ["s" * 200] * 9 for j in range(9)} for i in range(9)} for _ in range(100)],
        {(i, "s" * 5000) for i in range(100)},
    ],
)
def test_a_repr_has_a_bounded_length(plain: object) -> None:
    shared = mori.share(plain)
    assert len(repr(shared)) < 4000
    assert "\n" not in repr(shared)
    assert len(shared._repr_html_()) < 8000


def test_a_notebook_shows_the_first_elements_and_where_they_lie() -> None:
    shared = mori.share({f"<{i}>": np.arange(300) for i in range(100)})
    shown = shared._repr_html_()
    assert "<th>&#x27;&lt;0&gt;&#x27;</th>" in shown
    size = f"{mori.explain(shared).nbytes / 1000:.1f} kB"
    assert f"SharedDict of 100, {size} in {mori.shared_name(shared)}" in shown
    shared["new"] = 1
    assert "SharedDict of 101, changed in this process" in shared._repr_html_()


def test_dir_shows_the_interface_alone() -> None:
    assert sorted(dir(mori)) == sorted([*mori.__all__, "__version__"])
    assert sorted(dir(mori_dask)) == sorted(mori_dask.__all__)
    assert sorted(dir(mori_ray)) == sorted(mori_ray.__all__)


@pytest.mark.parametrize("kind", [list, tuple, dict, set, frozenset])
def test_a_shared_container_has_no_public_name_that_its_builtin_has_not(kind: type) -> None:
    shared = mori.share(dict.fromkeys(range(100)) if kind is dict else kind(range(100)))
    assert {name for name in dir(shared) if not name.startswith("_")} <= {*dir(kind)}


def test_a_notebook_that_asks_for_it_shows_where_a_frame_lies() -> None:
    formatters = pytest.importorskip("IPython.core.formatters")

    class Shell:
        display_formatter = formatters.DisplayFormatter()

    frame = pd.DataFrame({"a": np.arange(1000.0)})
    shared = mori.share(frame)
    mori.load_ipython_extension(Shell)
    shown = Shell.display_formatter.format(shared)[0]["text/html"]
    assert shown.startswith(frame._repr_html_())
    assert shown.endswith(f" in {mori.shared_name(shared)}</p>")
    assert Shell.display_formatter.format(frame)[0]["text/html"] == frame._repr_html_()
    mori.unload_ipython_extension(Shell)
    assert Shell.display_formatter.format(shared)[0]["text/html"] == frame._repr_html_()
