"""A setting that cannot be used is an error that names it, and every error survives pickle."""

from __future__ import annotations

import gc
import pickle
import threading
import weakref
from collections.abc import Callable

import numpy as np
import pytest

import mori
from mori import errors
from mori.memory import lease


@pytest.mark.parametrize(
    "setting", ["nonsense", "memfd:x", "files:/nowhere/at/all", "files:/dev/null", "FILES"]
)
def test_a_store_that_cannot_be_used_is_an_error_that_names_it(
    setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("MORI_STORE", setting)
        with pytest.raises(mori.StoreError, match="MORI_STORE") as caught:
            mori.share(np.arange(3))
    assert setting in str(caught.value)


@pytest.mark.parametrize("seconds", ["", "ten", "-1", "inf", "nan"])
def test_a_grace_that_cannot_be_used_is_an_error_that_names_it(
    seconds: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MORI_GRACE", seconds)
    with pytest.raises(mori.SettingError, match=f"MORI_GRACE={seconds!r}"):
        mori.share(np.arange(3))


_ERRORS = [
    errors.MoriError("a text", more=1),
    errors.RegionNotFoundError(name="/mori_1_1", store="memfd"),
    errors.SavedRegionNotFoundError(path="/x.mori", found="No such file or directory"),
    errors.CorruptRegionError(name="/mori_1_1", found="damage"),
    errors.PickleNotAllowedError(name="file:/x.mori", path="obj['a']", cls="shapes.Circle"),
    errors.ClassNotFoundError(cls="shapes.Circle", found="it is no class"),
    errors.PartNotFoundError(name="/mori_1_1[3]", found="no such part"),
    errors.StoreError(store="files:/x", found="no such directory", remedy="Create it"),
    errors.StoreFullError(store="memfd", asked=10, free=5, remedy="Free memory"),
    errors.LimitError(asked="open a region", found="no descriptor is left", remedy="Raise ulimit -n"),
    errors.UnsafeRegionError(name="/mori_1_1", found="a FIFO"),
    errors.NotShareableError(path="obj[0]", found="it does not pickle"),
    errors.ReadOnlyViewError(),
    errors.SettingError(setting="MORI_GRACE", value="x", wanted="seconds"),
]


def test_every_error_is_tried() -> None:
    classes = {name for name in errors.__all__ if isinstance(getattr(errors, name), type)}
    names = {name for name in classes if issubclass(getattr(errors, name), errors.MoriError)}
    assert {type(error).__name__ for error in _ERRORS} == names


@pytest.mark.parametrize("error", _ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickle_with_its_fields(error: errors.MoriError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


class _Kept:
    """Stands for what the functions hold that an error went through."""


def _load_what_is_gone() -> Callable[[], object]:
    reference = pickle.dumps(mori.share(np.arange(10)))
    lease.expire_graces()
    return lambda: pickle.loads(reference)


def _find_in_a_list() -> Callable[[], object]:
    shared = mori.share([*range(100_000)])
    return lambda: shared.index(-1)


_FAILING: dict[str, tuple[type[Exception], Callable[[], Callable[[], object]]]] = {
    "a reference": (mori.RegionNotFoundError, _load_what_is_gone),
    "a name": (mori.RegionNotFoundError, lambda: lambda: mori.map_shared("/mori_1_1")),
    "bytes": (mori.CorruptRegionError, lambda: lambda: mori.frombuffer(bytes(500))),
    "an object": (mori.NotShareableError, lambda: lambda: mori.share({"a": [1, threading.Lock()]})),
    "room": (mori.StoreFullError, lambda: lambda: mori.allocate(1 << 50)),
    "an element": (ValueError, _find_in_a_list),
}


@pytest.mark.parametrize("what", _FAILING)
def test_an_error_that_was_caught_keeps_nothing(what: str) -> None:
    """A cycle of it and a frame would, until a garbage collection: a region that the caller had, too."""
    kind, prepare = _FAILING[what]
    fail = prepare()

    def call(_: _Kept) -> str:
        try:
            fail()
        except kind:
            return "caught"
        return "nothing was raised"

    assert call(_Kept()) == "caught"  # what is imported by that is no matter
    gc.collect()
    gc.disable()
    try:
        kept = _Kept()
        known = weakref.ref(kept)
        call(kept)
        del kept
        assert known() is None
    finally:
        gc.enable()
