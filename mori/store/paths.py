"""The path store: regions as ordinary files, under names that users chose.

Invariant: what stands under the name of a file is whole, the old region or the new one, at any moment, also
after a crash of the system. Nothing here keeps a file, and nothing removes one: its life is its user's.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from mori.errors import CorruptRegionError
from mori.store.base import (
    HEADER,
    PATH,
    Draft,
    Entry,
    Header,
    Held,
    Owner,
    Where,
    boot_id,
    entry_of,
    opened,
    parse_label,
    unpack_header,
)
from mori.store.processes import descriptors, processes

__all__ = ["PathStore"]

_DRAFT = ".draft"
_NO_FILES = ("/memfd:", "/dev/", "/proc/", "/sys/", "/anon_hugepage")
_LARGEST = 1 << 62  # where a file system does not say how much is free


class PathStore:
    """Regions in files that users named; a new one goes to `path`."""

    kind = PATH
    is_lasting = True

    def __init__(self, path: str = "") -> None:
        self._path = path
        self._dir = os.path.dirname(path)
        self.name: str = f"file:{path}" if path else "a file"

    def domain(self) -> str:
        return f"file:{boot_id()}:{os.geteuid()}"

    def free(self) -> int:
        try:
            found = os.statvfs(self._dir)
        except OSError:  # `create` says what is wrong
            return _LARGEST
        return found.f_bavail * found.f_frsize if found.f_blocks else _LARGEST

    def remedy(self) -> str:
        return "What stood there before still does. Free space, or save to another file system"

    def create(self, number: int, region_id: bytes, nbytes: int = 0) -> Draft | None:
        if os.path.exists(self._path) and not os.path.isfile(self._path):
            if os.path.isdir(self._path):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), self._path)
            found = "It is no regular file, and would be gone"  # such as /dev/null
            raise FileExistsError(errno.EEXIST, found, self._path)
        # Of a name that is no longer than any: a file's own may be as long as names can be.
        path = os.path.join(self._dir, f".mori-{os.urandom(8).hex()}{_DRAFT}")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            owner = opened(os.open, path, flags, 0o666)
            return Draft(Held.of([owner]), os.getpid(), number, path)
        except OSError as error:
            raise OSError(error.errno, os.strerror(error.errno or 0), self._path) from None
        except BaseException:  # a signal's
            _unlink(path)
            raise

    def publish(self, draft: Draft) -> Held | None:
        assert draft.path is not None
        os.fsync(draft.held.fds[0])
        os.replace(draft.path, self._path)
        with contextlib.suppress(OSError):  # some file systems know no such thing
            directory = opened(os.open, self._dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            os.fsync(directory.fileno())
        return draft.held._replace(source=self._path)

    def discard(self, draft: Draft) -> None:
        assert draft.path is not None
        _unlink(draft.path)
        draft.held.close()

    def find(self, where: Where) -> Held | None:
        assert where.path is not None
        owner = opened(os.open, where.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        found = os.fstat(owner.fileno())
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), where.path)
        if not stat.S_ISREG(found.st_mode):
            raise CorruptRegionError(name=where.shown, found="it is not a regular file")
        return Held.of([owner], statuses=(found,), source=where.path)

    def release(self, held: Held) -> None:
        held.close()

    def create_receipts(self, number: int) -> Held | None:
        return None  # nothing has to be held until a reference has arrived

    def open_receipts(self, pid: int, fd: int, number: int) -> Owner | None:
        return None

    def entries(self, region_id: bytes | None = None) -> Iterator[Entry]:
        held: dict[tuple[int, int], tuple[str, os.stat_result, Header, set[int]] | None] = {}
        for pid in processes():
            for number, link in descriptors(pid):
                if not link.startswith("/") or link.startswith(_NO_FILES):
                    continue
                with contextlib.suppress(OSError):
                    found = os.stat(f"/proc/{pid}/fd/{number}")
                    key = found.st_dev, found.st_ino
                    if key not in held:
                        header = _header(f"/proc/{pid}/fd/{number}", found)
                        held[key] = header and (link, found, header, set())
                    if (one := held[key]) is not None:
                        one[3].add(pid)
        for one in held.values():
            if one is not None and region_id in (None, one[2].region_id):
                source, status, header, holders = one
                yield entry_of(header, status, holders, source)

    def prune(self) -> list[str]:
        return []


def _header(path: str, status: os.stat_result) -> Header | None:
    """Return the header of a region in a file; None for any other file."""
    name = os.path.basename(os.readlink(path))
    if not stat.S_ISREG(status.st_mode) or parse_label(name) is not None or name.endswith(_DRAFT):
        return None  # one of the files store, which lists it, or not whole yet
    owner = opened(os.open, path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    header = unpack_header(os.pread(owner.fileno(), HEADER.size, 0))
    return None if isinstance(header, str) else header


def _unlink(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
