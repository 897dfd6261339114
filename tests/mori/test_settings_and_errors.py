"""A setting that cannot be used is an error that names it, and every error survives pickle."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import mori
from mori import errors


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
    errors.CorruptRegionError(name="/mori_1_1", found="damage"),
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
