"""The command line: what it prints, in words and in JSON, and its exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mori

_ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mori", *arguments],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=55,
    )


def test_ls_lists_what_is_alive_with_its_size_creator_and_holders(store: str) -> None:
    shared = mori.share(np.zeros(1_000_000))
    done = run("ls")
    (line,) = [line for line in done.stdout.splitlines() if line.split()[0] == mori.shared_name(shared)]
    assert "8.0 MB" in line
    assert str(os.getpid()) in line
    assert done.returncode == 0
    (entry,) = [
        entry for entry in json.loads(run("ls", "--json").stdout) if entry["name"] == mori.shared_name(shared)
    ]
    assert entry["nbytes"] > 8_000_000
    assert entry["owner"] == os.getpid()


def test_ls_of_nothing_says_so(store: str) -> None:
    if store == "memfd":  # other processes of this user may have some
        assert run("ls").returncode == 0
    else:
        assert "0 regions" in run("ls").stdout


def test_inspect_shows_the_parts_of_a_region_and_of_a_part(store: str) -> None:
    shared = mori.share({"a": np.zeros(1000), "b": [np.ones(10), {"c": np.arange(5)}]})
    name = mori.shared_name(shared)
    done = run("inspect", name)
    assert done.returncode == 0, done.stderr
    assert "SharedDict" in done.stdout
    assert "NDARRAY" in done.stdout
    found = json.loads(run("inspect", "--json", f"{name}[1]").stdout)
    assert found["type"].endswith("SharedList")
    assert found["parts"][0]["children"] == 2
    assert found["region"]["name"] == name


def test_inspect_shows_a_bounded_number_of_parts(store: str) -> None:
    shared = mori.share([np.full(3, i) for i in range(1000)])
    parts = json.loads(run("inspect", "--json", "--parts", "7", mori.shared_name(shared)).stdout)["parts"]
    assert len(parts) == 8


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        ("nonsense", 2, "is no name of a region"),
        ("/mori_1_999999", 1, "not found"),
    ],
)
def test_inspect_of_what_is_not_there_is_an_error(store: str, name: str, code: int, text: str) -> None:
    done = run("inspect", name)
    assert done.returncode == code
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_inspect_of_a_part_that_is_not_there_is_an_error() -> None:
    shared = mori.share([np.arange(3)])
    done = run("inspect", f"{mori.shared_name(shared)}[5]")
    assert done.returncode == 1
    assert "out of bounds" in done.stderr


def test_prune_removes_what_a_killed_process_left(store: str) -> None:
    code = (
        "import os, numpy, mori; x = mori.share(numpy.ones(9)); "
        "print(mori.shared_name(x), flush=True); os.kill(os.getpid(), 9)"
    )
    left = subprocess.run(
        [sys.executable, "-c", code], cwd=_ROOT, stdout=subprocess.PIPE, text=True, check=False
    ).stdout.strip()
    done = run("prune")
    assert done.returncode == 0
    if store == "memfd":
        assert "0 regions removed" in done.stdout
    else:
        assert done.stdout.splitlines() == [left, f"1 regions removed from the {store} store"]
    assert json.loads(run("prune", "--json").stdout) == []


def test_doctor_tries_the_store_and_another_process(store: str) -> None:
    done = run("doctor", "--json")
    checks = {check["what"]: check for check in json.loads(done.stdout)}
    assert done.returncode == 0, done.stdout
    assert checks["store"]["verdict"] == "ok"
    assert checks["store"]["found"].startswith(store)
    assert checks["other processes"]["verdict"] == "ok"
    assert f"numpy {np.__version__}" in checks["versions"]["found"]
    assert {"room", "/dev/shm", "open files", "mappings", "pid namespaces", "huge pages"} <= checks.keys()
    assert all(check["remedy"] for check in checks.values() if check["verdict"] in ("warn", "fail"))


def test_doctor_says_what_is_wrong_with_a_store_and_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("MORI_STORE", "files:/nowhere")
        done = run("doctor")
    assert done.returncode == 1
    assert "fail  store: cannot use the store 'files:/nowhere': there is no such directory" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_doctor_says_that_processes_do_not_see_each_other_in_proc() -> None:
    """Real: a mount namespace whose /proc is empty."""
    command = f"mount -t tmpfs none /proc && MORI_STORE=memfd {sys.executable} -m mori doctor"
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", command],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=55,
    )
    if "unshare failed" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no new mount namespace may be made here: {done.stderr}")
    assert "fail  other processes" in done.stdout, done.stdout + done.stderr
    assert "MORI_STORE=files:DIR" in done.stdout
    assert done.returncode == 1


def test_a_wrong_command_is_an_error_with_the_usage() -> None:
    done = run("frobnicate")
    assert done.returncode == 2
    assert "usage: mori" in done.stderr
