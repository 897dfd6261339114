"""Something else than a region lies under a region's name in a directory of the `files` store."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

import mori
from attacks.trying import attempt, row
from mori.format import writer
from mori.format.plan import measure
from mori.store import base
from mori.wire import reference

_NAME = "mori_7_1"


@contextlib.contextmanager
def files_store() -> Iterator[Path]:
    """Use a new store of files; yield the directory in it where this user's regions are."""
    with tempfile.TemporaryDirectory() as shared:
        os.environ["MORI_STORE"], os.environ["MORI_GRACE"] = f"files:{shared}", "0"
        home = Path(shared, f"mori-{os.geteuid()}")
        home.mkdir(0o700)
        yield home


def plant(directory: Path, **fields: int) -> Path:
    """Write a good region that no process holds."""
    plan = measure(np.arange(1000))
    header = base.Header(bytes(range(16)), writer.region_nbytes(plan), writer.ROOT, 7, 1, 0)
    path = directory / _NAME
    path.write_bytes(writer.to_bytes(plan, header._replace(**fields)))
    path.chmod(0o600)
    return path


def as_it_is(path: Path) -> None:
    pass


def as_symlink(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def as_dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def as_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def as_socket(path: Path) -> None:
    path.unlink()
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(path))
    path.chmod(0o600)


def as_directory(path: Path) -> None:
    path.unlink()
    path.mkdir(0o600)


def as_device(major: int, minor: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.unlink()
        os.mknod(path, 0o600 | 0o020000, os.makedev(major, minor))

    return make


def as_empty(path: Path) -> None:
    os.truncate(path, 0)


def as_cut(path: Path) -> None:
    os.truncate(path, 4096)


def as_sparse(path: Path) -> None:
    """Make a header true that speaks of 8 TB, with a file of so many that takes no room."""
    nbytes = 8 << 40
    with open(path, "r+b") as file:
        header = base.unpack_header(file.read(64))
        assert not isinstance(header, str)
        file.seek(0)
        file.write(base.pack_header(header._replace(nbytes=nbytes)))
        file.truncate(nbytes)


def as_readable(path: Path) -> None:
    path.chmod(0o644)


def as_setuid(path: Path) -> None:
    path.chmod(0o4600)


def as_anothers_name(path: Path) -> None:
    plant(path.parent, pid=8)


PLANTED: tuple[tuple[str, Callable[[Path], None]], ...] = (
    ("a region that its last user's death has left", as_it_is),
    ("a symlink to a good region", as_symlink),
    ("a symlink to nothing", as_dangling),
    ("a FIFO that nobody writes to", as_fifo),
    ("a socket", as_socket),
    ("a directory", as_directory),
    ("the device `/dev/zero`", as_device(1, 5)),
    ("the device `/dev/tty`", as_device(5, 0)),
    ("an empty file", as_empty),
    ("a region cut off in its data", as_cut),
    ("a region whose true header claims 8 TB, in a sparse file", as_sparse),
    ("a region that others may read", as_readable),
    ("a region with the setuid bit", as_setuid),
    ("a good region, under another's name", as_anothers_name),
)


def opened() -> str:
    got = mori.map_shared(f"/{_NAME}")
    if got is None or int(got.sum()) != 499500:
        raise AssertionError("garbage")
    return "opened, with its own data"


def referred() -> str:
    payload = struct.pack("<B16sIIIIQ", 1, bytes(range(16)), 7, 1, 0, 0, writer.ROOT)
    got = reference.load(payload)
    said = opened()
    del got  # which held the region until then
    return said


def while_it_changes(directory: Path) -> str:
    """Open a name 500 times, and until both came of it, while a thread replaces what lies under it."""
    good, other = plant(directory).rename(directory / "good"), directory / "other"
    os.mkfifo(directory / "fifo", 0o600)
    other.write_bytes(b"secret" * 1000)
    done = threading.Event()

    def change() -> None:
        name, scratch = directory / _NAME, directory / "scratch"
        while not done.is_set():
            for make in (
                lambda: os.link(good, scratch),
                lambda: os.symlink(other, scratch),
                lambda: os.link(directory / "fifo", scratch),
            ):
                make()
                os.replace(scratch, name)
                with contextlib.suppress(FileNotFoundError):  # os.replace leaves two links to one file
                    scratch.unlink()

    thread = threading.Thread(target=change)
    thread.start()
    counts = {"right": 0, "refused": 0}
    try:
        while sum(counts.values()) < 500 or (0 in counts.values() and sum(counts.values()) < 50_000):
            try:
                got = mori.map_shared(f"/{_NAME}")
                assert int(got.sum()) == 499500
                del got
                counts["right"] += 1
            except mori.MoriError:
                counts["refused"] += 1
            if not good.exists():  # the last one to let go has unlinked its name: plant it anew
                plant(directory).rename(good)
    finally:
        done.set()
        thread.join()
    assert counts["right"]
    assert counts["refused"]
    return "the right data or an error, each time"


def truncated_under_a_reader(directory: Path) -> str:
    plant(directory)
    got = mori.map_shared(f"/{_NAME}")
    os.truncate(directory / _NAME, 0)
    return f"reads {int(got.sum())}"


def main() -> None:
    for what, make in PLANTED:
        outcomes = []
        for look in (opened, referred):
            with files_store() as directory:
                try:
                    make(plant(directory))
                except PermissionError:  # only root can plant it
                    continue
                outcomes.append(attempt(look))
        if outcomes:
            row(what, *outcomes)
    for title, abuse in (
        (
            "what lies there is replaced by a link or a FIFO, again and again, while it is opened",
            while_it_changes,
        ),
        ("a file that a reader has mapped is truncated by its user", truncated_under_a_reader),
    ):
        with files_store() as directory:
            row(title, attempt(partial(abuse, directory)), "")


if __name__ == "__main__":
    main()
