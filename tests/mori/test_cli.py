"""The command line: what it prints, in words and in JSON, and its exit codes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mori
from mori.store.processes import announce

pytestmark = pytest.mark.each_store

pytestmark = pytest.mark.usefixtures("views")

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


def test_ls_shows_where_in_an_engine_the_holders_say_that_they_are(store: str) -> None:
    shared = mori.share(np.zeros(1000))
    name = mori.shared_name(shared)
    labels = [announce("engine", "node-1"), announce("engine", "\x1b[31m"), announce("No engine", "node-2")]
    try:
        (shown,) = [line for line in run("ls").stdout.splitlines() if line.startswith(f"{name} ")]
        (listed,) = [entry for entry in json.loads(run("ls", "--json").stdout) if entry["name"] == name]
    finally:
        for label in labels:
            assert label is not None
            label.close()
    # This process may have a label of an engine that other tests have started.
    assert {word for word in shown.split() if "node" in word or "\x1b" in word} == {"engine:node-1"}
    assert [place for place in listed["places"] if not place.startswith("ray:")] == ["engine:node-1"]
    assert "engine:" not in run("ls").stdout


def test_inspect_shows_the_parts_of_a_region_and_of_a_part(store: str) -> None:
    shared = mori.share({"a": np.zeros(1000), "b": [np.ones(10), {"c": np.arange(5)}]})
    name = mori.shared_name(shared)
    done = run("inspect", name)
    assert done.returncode == 0, done.stderr
    assert f"{name}: DICT" in done.stdout
    assert re.search(r"\['a'\] +ndarray float64 \(1000,\) +8.0 kB", done.stdout)
    found = json.loads(run("inspect", "--json", f"{name}[1,0]").stdout)
    assert found["codec"] == "DICT"
    assert found["region"]["name"] == name


def test_inspect_takes_the_names_that_it_prints(store: str) -> None:
    frame = pd.DataFrame({"a": np.arange(300), "b": ["one"] * 300})
    shared = mori.share({"frame": frame, "many": {f"k{i}": np.full(200, i) for i in range(100)}, "n": 1})
    done = run("inspect", "--json", mori.shared_name(shared))
    parts = {part["step"]: part for part in json.loads(done.stdout)["parts"]}
    assert parts["['frame']"]["kind"] == "DataFrame (300, 2)"
    assert parts["['frame']['a']"]["kind"] == "Series int64 (300,)"
    assert parts["['many']['k3']"]["kind"] == f"ndarray {np.arange(1).dtype} (200,)"
    for part in parts.values():
        if part["kind"] != "int":
            again = json.loads(run("inspect", "--json", part["name"]).stdout)
            assert again["parts"][0]["kind"] == part["kind"]


def test_inspect_finds_parts_of_every_kind() -> None:
    """The keys of this dict have an index, its values lie in blocks, and some are nodes of their own."""
    plain = {
        **{f"k{i}": np.arange(50) for i in range(20)},
        "r": {"id": 1},
        "s": ["text"] * 600,
        "p": [1.5] * 600,
    }
    name = mori.shared_name(shared := mori.share(plain))
    for path, codec, node in (
        ("[1]", "DICT", ""),
        ("[20,0]", "DICT", ""),
        ("[21,499]", "DICT", ""),
    ):
        found = json.loads(run("inspect", "--json", f"{name}{path}").stdout)
        assert (found["codec"], found["node"]) == (codec, f"{name}{node}")
        assert mori.map_shared(f"{name}{path}") is not None
    done = run("inspect", f"{name}[21,600]")
    assert done.returncode == 1
    assert "out of bounds: there are 600 elements" in done.stderr
    del shared


def test_inspect_shows_a_bounded_number_of_parts(store: str) -> None:
    shared = mori.share([np.full(1100, i, "if"[i % 2]) for i in range(1000)])  # of two dtypes: nodes
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
    assert done.stdout.count("/nowhere") == 1, "the same is said again by every other check"
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
    assert "fail  store: cannot use the store 'memfd': regions are found through /proc" in done.stdout
    assert "MORI_STORE=files:DIR" in done.stdout
    assert done.returncode == 1


def test_doctor_says_that_files_are_used_in_place_of_memfd_and_why() -> None:
    command = f"mount -t tmpfs none /proc && {sys.executable} -m mori doctor && {sys.executable} -m mori ls"
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
    assert done.returncode == 0, done.stderr
    assert "warn  store: files:/dev/shm (MORI_STORE is unset)" in done.stdout
    assert "memfd cannot be used here: regions are found through /proc, which is not mounted" in done.stdout
    assert "do: Every process that is to open them has to choose the same; set MORI_STORE=" in done.stdout
    (said,) = done.stderr.splitlines()  # by ls alone, and in one line
    assert said.startswith("mori: shared regions go to files in /dev/shm, since memfd cannot be used here")


def test_doctor_says_that_few_files_may_be_open() -> None:
    command = f"ulimit -n 256 && {sys.executable} -m mori doctor"
    done = subprocess.run(
        ["sh", "-c", command], cwd=_ROOT, capture_output=True, text=True, check=False, timeout=55
    )
    assert "warn  open files: 256 open files at most" in done.stdout, done.stdout + done.stderr
    assert "docker run --ulimit nofile=" in done.stdout
    assert done.returncode == 0


def test_doctor_says_that_shm_is_as_small_as_docker_makes_it() -> None:
    """Real: a mount namespace whose /dev/shm has 64 MB."""
    command = (
        "mount -t tmpfs -o size=64m none /dev/shm && "
        f"{sys.executable} -m mori doctor; MORI_STORE=files {sys.executable} -m mori doctor"
    )
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
    assert "note  /dev/shm: 67.1 MB, as docker makes it; this store does not need it" in done.stdout
    assert "warn  /dev/shm: 67.1 MB, as docker makes it\n      do: docker run --shm-size=8g" in done.stdout
    assert "warn  room: " in done.stdout


def test_doctor_says_that_a_holder_lives_in_another_pid_namespace() -> None:
    code = "import mori, numpy; x = mori.share(numpy.ones(9)); print('shared', flush=True); input()"
    with subprocess.Popen(
        ["unshare", "--user", "--map-root-user", "--pid", "--fork", sys.executable, "-c", code],
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stderr is not None
        if other.stdout.readline() != "shared\n":
            pytest.skip(f"no new pid namespace may be made here: {other.stderr.read()}")
        try:
            done = run("doctor")
        finally:
            other.stdin.write("\n")
            other.stdin.close()
    assert re.search(r"warn  pid namespaces: \d+ of the processes with regions live in other", done.stdout)
    assert "MORI_STORE=files:DIR" in done.stdout


@pytest.mark.parametrize("command", [["ls"], ["ls", "--json"], ["doctor"]])
def test_a_reader_that_has_read_enough_is_no_traceback(command: list[str]) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "mori", *command],
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(50) == 1


def test_a_wrong_command_is_an_error_with_the_usage() -> None:
    done = run("frobnicate")
    assert done.returncode == 2
    assert "usage: mori" in done.stderr


def test_inspect_and_verify_take_a_file_and_ls_lists_it(store: str, tmp_path: Path) -> None:
    path = tmp_path / "x.mori"
    mori.save({"a": np.arange(100_000), "b": [["word"] * 10_000]}, path)
    x = mori.load(path)
    done = run("inspect", str(path))
    assert done.returncode == 0, done.stderr
    assert re.search(r"DICT.* in a file", done.stdout.splitlines()[0])
    assert re.search(r"\['a'\] +ndarray int64 \(100000,\) +80\d\.\d kB +\d+", done.stdout)
    name = mori.shared_name(x["a"])
    assert name == f"file:{path}[0]"
    assert "ndarray int64 (100000,)" in run("inspect", name).stdout
    shown = json.loads(run("inspect", str(path), "--json").stdout)
    assert shown["store"] == "a file"
    assert shown["parts"][0]["offset"] == 64
    (line,) = [line for line in run("ls").stdout.splitlines() if line.startswith(f"file:{path} ")]
    assert str(os.getpid()) in line
    done = run("verify", str(path))
    assert done.returncode == 0
    assert re.fullmatch(rf"{path}: [89]\d\d\.\d kB, as it was saved\n", done.stdout)
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    done = run("verify", "--json", str(path), str(tmp_path / "none"))
    assert done.returncode == 1
    assert json.loads(done.stdout) == {str(path): None, str(tmp_path / "none"): None}
    assert "the checksum of the bytes from 0 to" in done.stderr
    assert "No such file or directory" in done.stderr
    done = run("inspect", str(tmp_path / "none"))
    assert done.returncode == 2
    assert "no file" in done.stderr
    mori.save([print, ["word"] * 10_000], path)  # which is not unpickled
    assert "pickle of builtins.print" in run("inspect", str(path)).stdout
    mori.save({"a": ["word"] * 10_000, "b": [Path("x"), re.compile("x" * 50)] * 500}, path)
    done = run("inspect", str(path))
    assert re.search(r"\['a'\] .*list of 10,000", done.stdout)
    assert re.search(r"\[1\] .*pickle of re\._compile", done.stdout)


def test_a_file_of_any_name_is_printed_and_does_nothing_to_a_terminal(store: str, tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"\xff\x1b[31m\n.mori")
    mori.save(list(range(1000)), path)
    x = mori.load(path)
    name = os.fsdecode(path)
    for command in (["ls"], ["verify", name], ["inspect", name], ["inspect", name + "x"]):
        done = run(*command)
        assert done.returncode in (0, 2), done.stderr
        if done.returncode == 0:
            assert r"\udcff\x1b[31m\n.mori" in done.stdout
        assert "\x1b" not in done.stdout + done.stderr
    assert mori.map_shared(mori.shared_name(x))[5] == 5
