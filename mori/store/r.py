"""R's regions: POSIX shared memory under the names that R's mori gives, on Linux the files of /dev/shm.

What R wrote is R's: it is mapped, and never removed, written or locked. A region that mori wrote in R's
layout ends with a header of mori's, which R does not look at. By that it is known as ours, and lives as those
of the files store do: each holder has a lock, and the last one removes the name. Invariant: no file is locked
or removed whose last bytes do not prove that mori wrote it under this name.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import time
from collections.abc import Iterator
from typing import Final

from mori.errors import CorruptRegionError, StoreError
from mori.store import limits
from mori.store.base import (
    HEADER,
    Draft,
    Entry,
    Header,
    Held,
    Owner,
    R,
    Where,
    entry_of,
    format_label,
    opened,
    parse_label,
    unpack_header,
)
from mori.store.files import holders_of, open_own, own_file
from mori.store.locks import lock
from mori.store.memfd import MemfdStore
from mori.store.processes import processes

__all__ = ["STORE", "RStore"]

_SHM: Final = "/dev/shm"
_LEAST: Final = 24  # bytes of the shortest header of R's
_ID: Final = struct.Struct("<QQ")
_PRUNE_EVERY: Final = 1.0  # seconds between the looks that share() takes for orphans
_UNUSABLE: Final = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EOPNOTSUPP, errno.EISDIR)


class RStore:
    """Regions in R's layout.

    A reference finds one by the descriptor of the process that pickled it, as it finds a memfd, or by its
    name; receipts go as those of memfds do.
    """

    kind = R
    is_lasting = False
    name = "R's shared memory"

    def __init__(self) -> None:
        self._prune_at = 0.0

    def domain(self) -> str:
        return MemfdStore().domain()

    def free(self) -> int:
        try:
            found = os.statvfs(_SHM)
        except OSError as error:
            raise self._unusable(error) from error
        return min(found.f_bavail * found.f_frsize, limits.memory())

    def _unusable(self, error: OSError) -> StoreError:
        return StoreError(
            store=self.name,
            found=f"no file can be made in {_SHM} ({error.strerror})",
            remedy="R needs a tmpfs there that this user may write to: mount one, or share without layout",
        )

    def remedy(self) -> str:
        return (
            "R's regions are in /dev/shm: free space there (mori.prune_shared() here and in R), or raise its "
            "size (docker run --shm-size=8g; mount -o remount,size=8g /dev/shm)"
        )

    def create(self, number: int, region_id: bytes, nbytes: int = 0) -> Draft:
        """Begin a region, under a number of its own: R takes the names of its own process at random, too."""
        began = time.monotonic()
        if began >= self._prune_at:
            self.prune()
            # Whatever names others put there, looking through them takes little of the time.
            took = time.monotonic() - began
            self._prune_at = began + max(_PRUNE_EVERY, 20 * took)
        pid, number = os.getpid(), int.from_bytes(os.urandom(4)) or 1
        # Without a name until it is whole: a writer that is killed leaves nothing.
        try:
            owner = opened(os.open, _SHM, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno not in _UNUSABLE:
                raise
            raise self._unusable(error) from error
        os.fchmod(owner.fileno(), 0o600)
        fcntl.flock(owner.fileno(), fcntl.LOCK_SH)
        return Draft(Held.of([owner], os.path.join(_SHM, format_label(pid, number))), pid, number)

    def publish(self, draft: Draft) -> Held | None:
        # Python follows the link of a descriptor only where it is given a directory.
        directory = opened(os.open, _SHM, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            label, link = format_label(draft.pid, draft.number), f"/proc/self/fd/{draft.held.fds[0]}"
            os.link(link, label, dst_dir_fd=directory.fileno())
        except FileExistsError:
            return None
        finally:
            directory.close()
        return draft.held

    def discard(self, draft: Draft) -> None:
        draft.held.close()

    def find(self, where: Where) -> Held | None:
        label = format_label(where.pid, where.number)
        if where.fd >= 0 and (held := self._held_by_sender(where, label)) is not None:
            return held
        return self._open(os.path.join(_SHM, label), label, os.O_NOFOLLOW)

    def _held_by_sender(self, where: Where, label: str) -> Held | None:
        """Open the region of a reference by its sender's descriptor.

        R, or R's prune_shared, may have taken the name away, and another user may have that name by now.
        """
        link = f"/proc/{where.holder}/fd/{where.fd}"
        with contextlib.suppress(OSError):
            held = self._open(link, label, 0) if os.readlink(link).startswith(f"{_SHM}/") else None
            if held is not None and held.header is not None and held.header.region_id == where.region_id:
                return held
            if held is not None:
                held.close()
        return None

    def _open(self, path: str, label: str, flags: int) -> Held | None:
        try:
            owner, status = open_own(path, flags)
        except FileNotFoundError:
            return None
        fd = owner.fileno()
        try:
            if status.st_size < _LEAST:
                found = f"{status.st_size} bytes are too few for a header of R's"
                raise CorruptRegionError(name=f"/{label}", found=found)
            header, is_ours = _header(fd, status, label)
            if is_ours and not lock(fd, fcntl.LOCK_SH):  # its last holder is just letting go
                owner.close()
                return None
            is_named = is_ours and os.fstat(fd).st_nlink > 0
        except BaseException:
            owner.close()
            raise
        name = os.path.join(_SHM, label) if is_named else None
        return Held.of([owner], name, statuses=(status,), header=header)

    def release(self, held: Held) -> None:
        held.close()  # first: a forked child shares this open file, and with it the lock
        if held.path is not None:
            _unlink_if_unheld(held.path)

    def create_receipts(self, number: int) -> Held | None:
        return MemfdStore().create_receipts(number)

    def open_receipts(self, pid: int, fd: int, number: int) -> Owner | None:
        return MemfdStore().open_receipts(pid, fd, number)

    def entries(self, region_id: bytes | None = None) -> Iterator[Entry]:
        holders: dict[tuple[int, int], set[int]] | None = None
        for path in _paths():
            with contextlib.suppress(OSError), own_file(path) as (fd, status):
                header, is_ours = _header(fd, status, os.path.basename(path))
                if region_id not in (None, header.region_id) or not (is_ours or _is_rs(fd)):
                    continue
                if holders is None:
                    holders = _holders()
                yield entry_of(header, status, holders.get((status.st_dev, status.st_ino), ()))

    def prune(self) -> list[str]:
        return [f"/{os.path.basename(path)}" for path in _paths() if _unlink_if_unheld(path)]


def _paths() -> list[str]:
    try:
        names = os.listdir(_SHM)
    except OSError:
        return []
    return [os.path.join(_SHM, name) for name in names if parse_label(name) is not None]


def _header(fd: int, status: os.stat_result, label: str) -> tuple[Header, bool]:
    """Return what stands for a region's header, and whether mori wrote it.

    The root of R's layout is at 0, where a region of mori's has its header. R gives no ids: the file's inode
    and the time when it was written tell one region from another.
    """
    foot = unpack_header(os.pread(fd, HEADER.size, max(0, status.st_size - HEADER.size)))
    if not isinstance(foot, str) and (format_label(foot.pid, foot.number), foot.nbytes) == (
        label,
        status.st_size,
    ):
        return foot._replace(root=0), True
    name = parse_label(label)
    assert name is not None
    region_id = _ID.pack(status.st_ino, status.st_mtime_ns & (1 << 64) - 1)
    return Header(region_id, status.st_size, 0, name.pid, name.number, 0), False


def _is_rs(fd: int) -> bool:
    """Return whether a file begins as a region of R's does."""
    return os.pread(fd, 4, 0) in (b"HROM", b"LROM", b"SROM")


def _unlink_if_unheld(path: str) -> bool:
    """Remove the name of a region that mori wrote and no process has locked; return whether it was."""
    try:
        with own_file(path) as (fd, status):
            if not _header(fd, status, os.path.basename(path))[1] or not lock(fd, fcntl.LOCK_EX):
                return False
            if not os.path.samestat(status, os.stat(path, follow_symlinks=False)):
                return False
            os.unlink(path)
            return True
    except OSError:
        return False


def _holders() -> dict[tuple[int, int], set[int]]:
    """Return who has which file open or mapped, by device and inode: R maps a region and closes the file."""
    found = holders_of(f"{_SHM}/mori_")
    for pid in processes():
        with contextlib.suppress(OSError), open(f"/proc/{pid}/maps", "rb") as lines:
            for line in lines:
                if b" /dev/shm/mori_" in line:
                    _, _, _, device, inode, *_ = line.split()
                    major, minor = (int(part, 16) for part in device.split(b":"))
                    found.setdefault((os.makedev(major, minor), int(inode)), set()).add(pid)
    return found


STORE: Final = RStore()
