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
from mori.store.base import PATH, Draft, Entry, Held, Owner, Where, boot_id, opened

__all__ = ["PathStore"]

_LARGEST = 1 << 62  # where a file system does not say how much is free


class PathStore:
    """Regions in files that users named; a new one goes to `path`."""

    kind = PATH
    is_lasting = True

    def __init__(self, path: str = "") -> None:
        self._path = path
        self._dir = os.path.dirname(path)
        self.name = f"file:{path}"

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
        # Of a name that is no longer than any: a file's own may be as long as names can be.
        path = os.path.join(self._dir, f".mori-{os.urandom(8).hex()}.draft")
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
        return draft.held

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
        return iter(())

    def prune(self) -> list[str]:
        return []


def _unlink(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
