"""One region for R and Python, with a real R on the other side: skipped where no Rscript has R's mori.

`MORI_RSCRIPT` names another Rscript than the one on the PATH.
"""

from __future__ import annotations

import functools
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mori
from tests.r_placed import SHM

_RSCRIPT = os.environ.get("MORI_RSCRIPT") or shutil.which("Rscript")
_LIMIT = 50


@functools.cache
def _version() -> tuple[str, str]:
    """Return the version of the R that has mori, and why there is none."""
    if sys.platform != "linux" or _RSCRIPT is None:
        return "", "there is no Rscript here (MORI_RSCRIPT names one)"
    done = subprocess.run(
        [_RSCRIPT, "-e", "library(mori); cat(as.character(getRversion()))"],
        capture_output=True,
        text=True,
        check=False,
        timeout=_LIMIT,
    )
    return done.stdout, done.stderr[-200:]


@pytest.fixture(autouse=True)
def _with_r(monkeypatch: pytest.MonkeyPatch) -> None:
    version, why = _version()
    if not version:
        pytest.skip(f"R cannot open regions here: {why}")
    monkeypatch.setenv("MORI_R_VERSION", version)


def in_r(code: str) -> str:
    """Run code in R, and return what it prints."""
    assert _RSCRIPT is not None
    done = subprocess.run(
        [_RSCRIPT, "-e", f"suppressMessages(library(mori)); {code}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=_LIMIT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def sharing(value: str) -> Iterator[str]:
    """Have R share a value, and yield its name, until R lets go of it and ends."""
    wait = "invisible(readLines(file('stdin'), 1))"
    code = f"library(mori); x <- share({value}); cat(shared_name(x), '\\n', sep = ''); {wait}"
    assert _RSCRIPT is not None
    with subprocess.Popen(
        [_RSCRIPT, "-e", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()
            process.wait(_LIMIT)


def test_r_shares_and_python_reads() -> None:
    value = (
        "list(x = c(1.5, NA, Inf), n = c(1L, NA), s = c('a', NA, '\\u00e7', enc2native('b')), "
        "f = factor(c('u', 'v', NA)), l = list(d = as.Date('2024-02-29') + 0:1, e = NULL), "
        "t = as.POSIXct('2024-02-29 12:34:56', tz = 'Europe/Paris'), m = matrix(1:6, 2), "
        "df = data.frame(a = 1:3, b = c(TRUE, NA, FALSE), row.names = c('p', 'q', 'r')), "
        "fun = function(x) x + 1, latin = iconv('na\\u00efve', 'UTF-8', 'latin1'), "
        "seq = setNames(1:3, as.character(1:3)), d = as.difftime(90, units = 'mins'))"
    )
    with sharing(value) as name:
        x = mori.map_shared(name)
        assert x["x"][0] == 1.5
        assert np.isnan(x["x"][1])
        assert x["n"].isna().tolist() == [False, True]
        assert [*x["s"]] == ["a", None, "ç", "b"]
        assert x["f"].tolist()[:2] == ["u", "v"]
        assert x["l"]["d"].tolist() == [pd.Timestamp("2024-02-29"), pd.Timestamp("2024-03-01")]
        assert x["l"]["e"] is None
        assert x["t"][0] == pd.Timestamp("2024-02-29 12:34:56", tz="Europe/Paris")
        assert x["m"].tolist() == [[1, 3, 5], [2, 4, 6]]
        assert x["df"].loc["q", "a"] == 2
        assert x["fun"].type == "closure"
        assert [*x["latin"]] == ["naïve"]
        assert x["seq"]["2"] == 2
        assert x["d"][0] == pd.Timedelta(minutes=90)
        assert mori.map_shared(f"{name}[5,1]").tolist() == x["l"]["d"].tolist()
        assert mori.shared_name(x["df"]["a"]) == f"{name}[8,1]"
        assert pickle.loads(pickle.dumps(x["x"])).tolist()[0] == 1.5
    assert not (SHM / name[1:]).exists()  # R has removed it, and Python still has it
    assert x["m"][1, 2] == 6


def test_python_shares_and_r_reads() -> None:
    frame = pd.DataFrame(
        {
            "x": [1.5, np.nan, 3],
            "n": pd.array([1, 2, None], "Int32"),
            "s": ["a", None, "ç"],
            "f": pd.Categorical(["u", "v", "u"], ordered=True),
            "l": pd.array([True, False, None], "boolean"),
            "t": pd.Series(pd.to_datetime(["2024-02-29 12:34:56"] * 3)).dt.tz_localize("Europe/Paris"),
            "d": np.array(["2024-02-29"] * 3, "M8[D]").astype(object),
        },
    )
    x = mori.share(
        {"df": frame, "m": np.arange(6.0).reshape(2, 3), "l": [1, "a", None], "none": None}, layout="r"
    )
    name = mori.shared_name(x)
    code = f"""
        x <- map_shared("{name}"); df <- x$df
        stopifnot(is_shared(x), identical(names(x), c("df", "m", "l", "none")), is.null(x$none))
        stopifnot(identical(df$n, c(1L, 2L, NA)), identical(df$l, c(TRUE, FALSE, NA)))
        stopifnot(identical(df$s, c("a", NA, "\\u00e7")), identical(nrow(df), 3L), is.data.frame(df))
        stopifnot(identical(df$f, factor(c("u", "v", "u"), ordered = TRUE)))
        stopifnot(identical(df$x[c(1, 3)], c(1.5, 3)), is.nan(df$x[2]))
        stopifnot(format(df$t[1], "%H:%M:%S %Z") == "12:34:56 CET")
        stopifnot(identical(df$d, rep(as.Date("2024-02-29"), 3)))
        stopifnot(identical(x$m, matrix(c(0, 3, 1, 4, 2, 5), 2)), identical(x$l, list(1L, "a", NULL)))
        stopifnot(identical(shared_name(x$m), "{name}[2]"), identical(map_shared("{name}[3,2]"), "a"))
        stopifnot(identical(rownames(df), as.character(1:3)), all.equal(df[2:3, ]$n, c(2L, NA)))
        cat("same")
    """
    assert in_r(code) == "same"


def test_a_function_of_r_goes_through_python_and_back() -> None:
    with sharing("list(f = function(x) x + 1, e = new.env())") as name:
        of_r = mori.map_shared(name)
        x = mori.share({"g": of_r["f"], "e": [of_r["e"], 1]}, layout="r")
        code = f'y <- map_shared("{mori.shared_name(x)}"); stopifnot(is.environment(y$e[[1]])); cat(y$g(41))'
        assert in_r(code) == "42"


def test_rs_prune_leaves_what_a_live_process_of_python_shares() -> None:
    x = mori.share(np.arange(5.0), layout="r")
    name = mori.shared_name(x)
    assert in_r(f'invisible(prune_shared()); cat(map_shared("{name}")[5])') == "4"


def test_r_goes_on_with_what_python_has_let_go() -> None:
    x: Any = mori.share(np.arange(5.0), layout="r")
    name = mori.shared_name(x)
    code = f'x <- map_shared("{name}"); cat("open\\n"); readLines(file("stdin"), 1); cat(sum(x))'
    assert _RSCRIPT is not None
    with subprocess.Popen(
        [_RSCRIPT, "-e", f"library(mori); {code}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        del x
        assert name is not None
        assert not (SHM / name[1:]).exists()
        out, _ = process.communicate("\n", _LIMIT)
        assert out.endswith("10")


def test_the_example_runs() -> None:
    example = Path(__file__).parents[2] / "examples" / "r_and_python" / "pipeline.py"
    done = subprocess.run(
        [sys.executable, str(example), "10000"], capture_output=True, text=True, check=False, timeout=_LIMIT
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "Python: 10,000 trips from R, 0.2 MB of numbers without a copy",
        "R: error 0.99 minutes over 10000 trips, slowest zone west",
    ]
