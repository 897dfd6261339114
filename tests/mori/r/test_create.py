"""What R's mori states in test-create.R: creation that fails, and names that are taken."""

import os

import numpy as np
import pytest

import mori
from tests import stored


# R: 51
def test_a_name_that_is_taken_is_passed_over_and_never_overwritten(tmp_path, monkeypatch):
    monkeypatch.setenv("MORI_STORE", f"files:{tmp_path}")
    first = mori.share(np.arange(10))
    stem, _, number = mori.shared_name(first).rpartition("_")
    taken = stored.home() / f"{stem[1:]}_{int(number, 16) + 1:x}"
    taken.write_bytes(b"an orphan of a process with this pid")
    os.chmod(taken, 0o644)  # of this mode it is nobody's region, and pruning leaves it alone
    second = mori.share(np.arange(11))
    assert mori.shared_name(second) == f"{stem}_{int(number, 16) + 2:x}"
    assert taken.read_bytes() == b"an orphan of a process with this pid"
    taken.unlink()


# R: 52
def test_more_than_there_can_be_is_an_error_with_its_size_and_leaves_nothing(store, tmp_path):
    seven_petabytes = np.broadcast_to(np.float64(1), (7 << 50) // 8)
    with pytest.raises(mori.StoreFullError) as caught:
        mori.share(seven_petabytes)
    assert caught.value.asked >= 7 << 50
    assert f"{caught.value.asked / 1e12:.1f} TB" in str(caught.value)
    if store != "memfd":
        assert stored.names(tmp_path / "store") == []
