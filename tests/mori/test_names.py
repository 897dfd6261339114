"""A part has a name, which opens it in every process; what is no name gives None."""

import numpy as np
import pandas as pd
import pytest

import mori
from tests.mori.pandas_versions import str_frame

pytestmark = [pytest.mark.each_store, pytest.mark.each_start]


def test_a_column_of_a_frame_has_a_name_of_its_place(store, worker):
    frame = str_frame({"a": [1, 2], "s": ["x", "y"], "b": [3, 4], "t": pd.to_datetime([1, 2])})
    root = mori.shared_name(shared := mori.share(frame))
    inside = mori.share([0, {"k": frame}])
    for place, column in enumerate(frame):
        name = mori.shared_name(shared[column])
        assert name == f"{root}[{place}]"
        assert mori.map_shared(name).tolist() == frame[column].tolist()
        assert worker(lambda name: mori.map_shared(name).tolist(), name) == frame[column].tolist()
        nested = mori.shared_name(inside[1]["k"][column])
        assert nested == f"{mori.shared_name(inside)}[1,0,{place}]"
        assert mori.map_shared(nested).name == column


def test_a_slice_has_no_name_but_is_shared(store):
    array, frame = mori.share(np.arange(10)), mori.share(pd.DataFrame({"a": range(10)}))
    for part in (array[2:5], array[::-1], frame["a"].iloc[2:5]):
        assert mori.is_shared(part)
        assert mori.shared_name(part) is None


def test_parts_have_names_that_open_them_everywhere(store, worker, nodes):
    shared = mori.share([[np.arange(300), "text"], {"k": (np.ones(200), ["5" * 600])}])
    root = mori.shared_name(shared)
    parts = [shared[0], shared[0][0], shared[1], shared[1]["k"], shared[1]["k"][0], shared[1]["k"][1]]
    names = [mori.shared_name(part) for part in parts]
    assert names == [f"{root}{path}" for path in ("[0]", "[0,0]", "[1]", "[1,0]", "[1,0,0]", "[1,0,1]")]

    def reopened(names):
        return [mori.shared_name(mori.map_shared(name)) for name in names]

    assert reopened(names) == names
    assert worker(reopened, names) == names
    assert worker(lambda name: mori.materialize(mori.map_shared(name)), names[5]) == ["5" * 600]
    assert mori.map_shared(f"{root}[0,1]") == "text"


def test_a_name_that_leads_out_of_the_object_is_an_error(store):
    shared = mori.share([[1, 2], np.arange(3), pd.DataFrame({"a": [1]})])
    root = mori.shared_name(shared)
    for path in ("[3]", "[0,2]", "[3,0]", "[1,0]", "[0,1,0]", "[2,1]", "[2,0,0]"):
        with pytest.raises(mori.PartNotFoundError, match=r"no part /mori_"):
            mori.map_shared(root + path)


@pytest.mark.parametrize("name", [
    "", "x", None, 3, b"/mori_1_1", ["/mori_1_1"], "/mori_", "/mori_1", "/mori_1_", "/mori__1", "/mori_G_1",
    "/mori_A_1", "/mori_1_1/", "mori_1_1", "/mori-1-1", "/mori_1_1[]", "/mori_1_1[-1]", "/mori_1_1[1,]",
    "/mori_1_1[,1]", "/mori_1_1[01]", "/mori_1_1[1,,2]", "/mori_1_1[a]", "/mori_1_1[ 1]", "/mori_1_1[1]x",
    "/mori_1_1[1", "/mori_1_1[1.0]", "/mori_1_1\n", "/mori_1_1[2147483648]", "/mori_0_1", "/mori_123456789_1",
    "/mori_1_1[" + ",".join("0" * 65) + "]", "/mori_1_1[\u0661]",
])  # fmt: skip
def test_a_malformed_name_gives_none(name):
    assert mori.map_shared(name) is None


def test_a_well_formed_name_of_nothing_is_an_error(store):
    for name in ("/mori_7fffffff_1", "/mori_7fffffff_1[0,2]"):
        with pytest.raises(mori.RegionNotFoundError, match="not found"):
            mori.map_shared(name)


class Counted:
    """An object that looks at its array when it is unpickled."""

    times = 0

    def __init__(self):
        self.array = np.arange(600)

    def __setstate__(self, state):
        type(self).times += 1
        self.__dict__.update(state, total=state["array"].sum())


@pytest.mark.parametrize("count", [1, 100])
def test_to_name_a_part_rebuilds_nothing_beside_it(store, worker, count):
    shared = mori.share([*(Counted() for _ in range(count)), {"k": np.arange(600)}])
    root, part, inside = mori.shared_name(shared), shared[count]["k"], shared[0].array
    assert mori.is_shared(inside)
    times = Counted.times
    assert mori.shared_name(inside) is None  # an attribute is no step of a name
    assert mori.shared_name(part) == f"{root}[{count},0]"
    assert Counted.times == times
    assert worker(lambda name: mori.map_shared(name).sum(), f"{root}[{count},0]") == 179700


def test_to_name_a_part_behind_what_is_damaged_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv("MORI_STORE", f"files:{tmp_path}")
    shared = mori.share([*(["damaged", n] for n in range(1000)), [np.arange(600)]])
    part = shared[1000][0]
    (path,) = (path for path in tmp_path.rglob("mori_*") if path.is_file())
    with open(path, "r+b") as file:
        file.seek(path.read_bytes().index(b"damaged"))
        file.write(b"D")
    with pytest.raises(mori.CorruptRegionError, match="checksum of block 0"):
        mori.shared_name(part)


@pytest.mark.parametrize("file", ["x.mori", "x[1]", "x[]", "a b\n.mori", "x[2,0].mori"])
def test_a_part_of_a_file_has_a_name_by_which_any_process_opens_it(tmp_path, file, worker):
    path = tmp_path / file
    mori.save({"a": [10, [20, ["x"] * 100]] * 500, "b": np.arange(10_000)}, path)
    x = mori.load(path)
    names = [mori.shared_name(part) for part in (x, x["a"], x["b"])]
    assert names[1:] == [f"file:{path}[0]", f"file:{path}[1]"]
    assert names[0] == f"file:{path}" + ("[]" if file.endswith("]") else "")
    for name, value in zip(names, (x, x["a"], x["b"]), strict=True):
        assert mori.materialize(worker(mori.map_shared, name)) is not None
        assert type(mori.map_shared(name)) is type(value)
    assert worker(lambda name: int(mori.map_shared(name)[7]), names[2]) == 7
    with pytest.raises(mori.PartNotFoundError, match="5"):
        mori.map_shared(f"file:{path}[5]")


@pytest.mark.parametrize("name", ["file:", "file:x", "file:x[0]", "file:/a\0b", "file:[1]"])
def test_what_is_no_name_of_a_file_is_none(name):
    assert mori.map_shared(name) is None


def test_a_name_of_a_file_that_is_gone_raises_as_open_does(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.mori"):
        mori.map_shared(f"file:{tmp_path}/none.mori[1]")
