"""The files store: a file a region in a directory, for any POSIX system and across pid namespaces.

Every holder keeps a shared flock, which the kernel drops with the process; whoever can take it exclusively is
the last, and unlinks. No pid is ever believed. Invariant: no name outside of this user's own directory is
looked at, and no file removed or listed that its first bytes do not prove to be mori's.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator

from mori.errors import StoreError, UnsafeRegionError
from mori.store import limits
from mori.store.base import (
    FILES,
    HEADER,
    MAGIC,
    RECEIPTS_NBYTES,
    Draft,
    Entry,
    Header,
    Held,
    Owner,
    Where,
    boot_id,
    entry_of,
    format_label,
    is_out_of_descriptors,
    opened,
    parse_label,
    unpack_header,
)
from mori.store.locks import is_own_directory, lock, make_directory, own_directories
from mori.store.processes import descriptors, processes

__all__ = ["FilesStore", "holders_of", "open_own", "own_file"]

_DRAFT = ".draft"
_RECEIPTS = MAGIC + b" receipts"  # what a page of them begins with
_PRUNE_EVERY = 1.0  # seconds between the looks that share() takes for orphans


class FilesStore:
    """Regions as files, kept alive by locks."""

    kind = FILES
    is_lasting = False

    def __init__(self, directory: str) -> None:
        directory = os.path.abspath(directory)  # the program may change to another one
        self.name: str = f"files:{directory}"
        self._dir = directory
        self._own: list[str] = []
        self._pruned = -_PRUNE_EVERY
        if not os.path.isdir(directory):
            raise StoreError(
                store=self.name, found="there is no such directory", remedy="Create it or set MORI_STORE"
            )
        if not os.access(directory, os.W_OK | os.X_OK):
            raise self._unwritable()

    def domain(self) -> str:
        found = self._status()
        return f"files:{boot_id()}:{found.st_dev}:{found.st_ino}:{os.geteuid()}"

    def _status(self) -> os.stat_result:
        try:
            return os.stat(self._dir)
        except OSError as error:
            raise self._gone() from error

    def _gone(self) -> StoreError:
        return StoreError(
            store=self.name,
            found="the directory is there no more",
            remedy="Create it again, or set MORI_STORE",
        )

    def _unwritable(self) -> StoreError:
        return StoreError(
            store=self.name, found="the directory is not writable", remedy="Set MORI_STORE=files:DIR"
        )

    def free(self) -> int:
        try:
            found = os.statvfs(self._dir)
        except OSError as error:
            raise self._gone() from error
        if not self._takes_files(found):
            return 0
        free = found.f_bavail * found.f_frsize
        # A tmpfs may be larger than what is left of the memory that it takes.
        return min(free, limits.memory()) if limits.is_in_memory(self._dir) else free

    def _takes_files(self, found: os.statvfs_result) -> bool:
        return found.f_favail > 0 or not found.f_files  # some count none

    def _has_room_beyond(self, nbytes: int) -> bool:
        found = os.statvfs(self._dir)
        return found.f_bavail * found.f_frsize > nbytes

    def remedy(self) -> str:
        if not self._takes_files(os.statvfs(self._dir)):
            return (
                "It has room for bytes, but not for one more file (df -i): remove files there, share many "
                "small objects as one, raise its number of inodes (mount -o remount,nr_inodes=1M), or set "
                "MORI_STORE=files:DIR to another directory"
            )
        if limits.is_in_memory(self._dir) and self._has_room_beyond(limits.memory()):
            return limits.memory_remedy()
        return (
            "Free space there, raise its size (docker run --shm-size=8g; mount -o remount,size=8g "
            "/dev/shm), or set MORI_STORE=files:DIR to a larger directory"
        )

    def create(self, number: int, region_id: bytes, nbytes: int = 0) -> Draft | None:
        if time.monotonic() - self._pruned >= _PRUNE_EVERY:
            self.prune()
        pid = os.getpid()
        try:
            path = os.path.join(self._home(), format_label(pid, number))
            if os.path.lexists(path):
                return None
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            owner = opened(os.open, path + _DRAFT, flags, 0o600)
        except FileExistsError:
            return None
        except FileNotFoundError as error:
            raise self._gone() from error
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise self._unwritable() from error
            raise
        fd = owner.fileno()
        draft = Draft(Held.of([owner], path), pid, number, path + _DRAFT)
        try:
            os.fchmod(fd, 0o600)
            # A pruner may have met the file before it was locked; then its name is gone: start again.
            if lock(fd, fcntl.LOCK_SH) and os.fstat(fd).st_nlink:
                return draft
        except BaseException:
            self.discard(draft)
            raise
        owner.close()
        return None

    def _home(self) -> str:
        """Return the directory that new regions go to, made now if it is not there."""
        if not self._homes():
            self._own = [make_directory(self._dir)]
        return self._own[0]

    def _homes(self) -> list[str]:
        """Return the directories that regions of this user are in, as far as they are known."""
        return self._own if self._own and is_own_directory(self._own[0]) else self._find_own()

    def _find_own(self) -> list[str]:
        self._own = own_directories(self._dir)
        return self._own

    def publish(self, draft: Draft) -> Held | None:
        path = draft.held.path
        assert path is not None
        try:
            os.link(path + _DRAFT, path, follow_symlinks=False)
        except FileExistsError:  # a creator of the same pid in another pid namespace
            return None
        os.unlink(path + _DRAFT)
        return draft.held

    def discard(self, draft: Draft) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{draft.held.path}{_DRAFT}")
        draft.held.close()

    def find(self, where: Where) -> Held | None:
        label = format_label(where.pid, where.number)
        return self._find_in(self._homes(), label) or self._find_in(self._find_own(), label)

    def _find_in(self, homes: list[str], label: str) -> Held | None:
        for home in homes:
            if (held := self._open(os.path.join(home, label))) is not None:
                return held
        return None

    def release(self, held: Held) -> None:
        # Close first: a forked child shares this open file, and with it the lock, so only a lock
        # taken through a new one says whether anybody else still holds the region.
        held.close()
        if held.path is not None:
            _unlink_if_unheld(held.path)

    def create_receipts(self, number: int) -> Held | None:
        # A draft that never becomes a region: where its process was killed, it is removed as one.
        draft = self.create(number, b"")
        if draft is None:
            return None
        try:
            os.pwrite(draft.held.fds[0], _RECEIPTS.ljust(RECEIPTS_NBYTES, b"\0"), 0)
        except BaseException:
            self.discard(draft)
            raise
        return draft.held._replace(path=draft.path)

    def open_receipts(self, pid: int, fd: int, number: int) -> Owner | None:
        for home in self._homes():
            path = os.path.join(home, format_label(pid, number)) + _DRAFT
            try:
                sheet = opened(os.open, path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                continue
            handle = sheet.fileno()
            if _fault_of(os.fstat(handle)) is None and os.pread(handle, len(_RECEIPTS), 0) == _RECEIPTS:
                return sheet
            sheet.close()
        return None

    def entries(self, region_id: bytes | None = None) -> Iterator[Entry]:
        holders = holders_of("/mori_")
        for path in self._files():
            if (entry := _entry(path, holders)) is not None and region_id in (None, entry.region_id):
                yield entry

    def prune(self) -> list[str]:
        self._pruned = time.monotonic()
        removed = filter(_unlink_if_unheld, self._files())
        # One killed while publishing leaves both names.
        return list(dict.fromkeys(f"/{os.path.basename(path).removesuffix(_DRAFT)}" for path in removed))

    def _files(self) -> Iterator[str]:
        for home in self._homes():
            try:
                names = os.listdir(home)
            except OSError:
                continue
            for name in names:
                if parse_label(name.removesuffix(_DRAFT)) is not None:
                    yield os.path.join(home, name)

    def _open(self, path: str) -> Held | None:
        try:
            owner, found = open_own(path)
        except FileNotFoundError:
            return None
        fd = owner.fileno()
        try:
            # Locked exclusively or unlinked: its last holder is just letting go.
            if not lock(fd, fcntl.LOCK_SH) or os.fstat(fd).st_nlink == 0:
                owner.close()
                return None
        except BaseException:
            owner.close()
            raise
        return Held.of([owner], path, statuses=(found,))


def open_own(path: str, flags: int = os.O_NOFOLLOW) -> tuple[Owner, os.stat_result]:
    """Open a file that this user alone can read and write.

    Raises
    ------
    FileNotFoundError
        If there is none.
    UnsafeRegionError
        If it cannot be opened, or is another user's.
    """
    try:
        owner = opened(os.open, path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)
    except FileNotFoundError:
        raise
    except OSError as error:
        if is_out_of_descriptors(error):
            raise
        raise UnsafeRegionError(name=path, found=str(error.strerror)) from error
    try:
        found = os.fstat(owner.fileno())
        if fault := _fault_of(found):
            raise UnsafeRegionError(name=path, found=fault)
    except BaseException:
        owner.close()
        raise
    return owner, found


def _fault_of(found: os.stat_result) -> str | None:
    """Return why a file is not one that this user alone can read and write; None if it is."""
    if not stat.S_ISREG(found.st_mode):
        return "it is not a regular file"
    if found.st_uid != os.geteuid():
        return f"it belongs to user {found.st_uid}, not to {os.geteuid()}"
    if stat.S_IMODE(found.st_mode) != 0o600:
        return f"its mode is {stat.S_IMODE(found.st_mode):o}, not 600"
    return None


@contextlib.contextmanager
def own_file(path: str) -> Iterator[tuple[int, os.stat_result]]:
    """Open a file as `open_own` does, for as long as the context lasts."""
    owner, found = open_own(path)
    try:
        yield owner.fileno(), found
    finally:
        owner.close()


def holders_of(mark: str) -> dict[tuple[int, int], set[int]]:
    """Return who has which file open, by device and inode, as far as /proc shows it.

    `mark` is what the paths of those files have. By the inode: a descriptor goes by the name that the file
    had when it was opened.
    """
    found: dict[tuple[int, int], set[int]] = {}
    for pid in processes():
        for number, link in descriptors(pid):
            if mark in link:
                with contextlib.suppress(OSError):
                    status = os.stat(f"/proc/{pid}/fd/{number}")
                    found.setdefault((status.st_dev, status.st_ino), set()).add(pid)
    return found


def _header(fd: int, path: str) -> Header | None:
    """Return the header of the region that is in a file of its name; None if there is none."""
    header = unpack_header(os.pread(fd, HEADER.size, 0))
    if isinstance(header, str) or format_label(header.pid, header.number) != os.path.basename(path):
        return None
    return header


def _entry(path: str, holders: dict[tuple[int, int], set[int]]) -> Entry | None:
    try:
        with own_file(path) as (fd, found):
            header = _header(fd, path)
    except OSError as error:
        if is_out_of_descriptors(error):
            raise
        return None
    return header and entry_of(header, found, holders.get((found.st_dev, found.st_ino), ()))


def _unlink_if_unheld(path: str) -> bool:
    """Remove a region, or the draft of one, that no process has locked; return whether it was."""
    try:
        with own_file(path) as (fd, found):
            if not lock(fd, fcntl.LOCK_EX):
                return False
            # Between opening and locking it may have been replaced by a live one of the same name.
            if not os.path.samestat(found, os.stat(path, follow_symlinks=False)):
                return False
            if path.endswith(_DRAFT):  # which begins with its header, when there is a byte of it
                is_proved = os.pread(fd, len(MAGIC), 0) in (b"", MAGIC)
            else:
                is_proved = _header(fd, path) is not None
            if is_proved:
                os.unlink(path)
            return is_proved
    except OSError:
        return False
