"""`share(progress=True)` says how far it is, once it takes longer than a second, and nothing else is said."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest

import mori
from mori import _progress

_STRINGS = [f"string {i}" for i in range(70_000)]


class _Bar:
    """Stands for what shows a phase: notes what it is told."""

    made: list[_Bar]

    def __init__(self, desc: str, unit: str, total: int | None = None, **options: object) -> None:
        self.desc, self.total, self.done, self.calls, self.closed = desc, total, 0, 0, False
        self.made.append(self)

    def update(self, count: int) -> None:
        assert not self.closed
        self.done += count
        self.calls += 1

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[_Bar]:
    found: list[_Bar] = []
    monkeypatch.setattr(_Bar, "made", found, raising=False)
    monkeypatch.setattr(_progress, "_maker", lambda: _Bar)
    return found


@pytest.mark.parametrize("obj", [
    _STRINGS, {key: i for i, key in enumerate(_STRINGS)}, [np.arange(3), *range(3000), "x"],
], ids=["list", "dict", "mixed"])  # fmt: skip
def test_elements_are_counted_as_they_are_measured_and_bytes_as_they_are_written(
    store: str, bars: list[_Bar], obj: object
) -> None:
    shared = mori.share(obj, progress=True)
    measuring, writing = bars
    assert measuring.done >= len(obj)  # type: ignore[arg-type]
    assert measuring.calls > 1
    (entry,) = [entry for entry in mori.regions() if entry.name == mori.shared_name(shared)]
    assert writing.done == writing.total == entry.nbytes
    assert all(bar.closed for bar in bars)


def test_a_large_array_is_counted_in_pieces(store: str, bars: list[_Bar]) -> None:
    shared = mori.share(np.ones(100 << 17), progress=True)
    assert bars[1].done == bars[1].total
    assert bars[1].calls > 3
    assert shared[-1] == 1


def test_nothing_is_counted_where_nobody_asked(store: str, bars: list[_Bar]) -> None:
    class Sharing:
        def __reduce__(self) -> tuple[object, tuple[object]]:
            mori.share(_STRINGS)  # inside a call that shows something
            return str, ("x",)

    mori.share(_STRINGS)
    assert not bars
    mori.share([np.arange(3), Sharing()], progress=True)
    assert len(bars) == 2
    assert bars[0].done < 100
    assert _progress.meter() is None


def test_a_failure_takes_the_bar_away(bars: list[_Bar]) -> None:
    with pytest.raises(mori.NotShareableError):
        mori.share([1, (i for i in range(3))], progress=True)
    assert [bar.closed for bar in bars] == [True]
    assert _progress.meter() is None


_SHOWING = """
import sys
if sys.argv[1] == "without tqdm":
    sys.modules["tqdm"] = sys.modules["tqdm.auto"] = None
import mori
from mori import _progress
_progress._DELAY, _progress._EVERY = float(sys.argv[2]), 0
x = mori.share([f"string {i}" for i in range(400_000)], progress=True)
assert len(x) == 400_000
"""


@pytest.mark.parametrize("how", ["with tqdm", "without tqdm"])
def test_it_is_shown_on_stderr_once_it_takes_long_with_tqdm_or_without(how: str) -> None:
    if how == "with tqdm":
        pytest.importorskip("tqdm")

    def said(delay: float) -> str:
        arguments = [sys.executable, "-c", _SHOWING, how, str(delay)]
        return subprocess.run(arguments, capture_output=True, text=True, check=True).stderr

    shown = said(0)
    assert "mori: measuring" in shown
    assert "mori: writing" in shown
    assert ("it/s" in shown or "B/s" in shown) == (how == "with tqdm")
    assert said(1000) == ""


def test_a_line_of_text_is_taken_away_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    monkeypatch.setattr(_progress, "_EVERY", 0)
    line = _progress._Line("mori: writing", "B", 0, 2_000_000)
    line.update(1_500_000)
    line.update(500_000)
    line.close()
    first, second, blank, end = out.getvalue().split("\r")[1:]
    assert first == "mori: writing 1,500,000 of 2,000,000 B"
    assert second == "mori: writing 2,000,000 of 2,000,000 B"
    assert (blank.strip(), len(blank), end) == ("", len(second), "")
