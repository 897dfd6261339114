"""Receipts: how the sender of a reference learns that it has arrived.

What multiprocessing sends may wait in a pipe for as long as its receiver is busy, so no fixed time will do. A
reference that it sends has a place on a sheet, which is a page of memory of the sender's: the receiver writes
one byte there as soon as it holds the region, and the sender holds it until then. Invariant: whoever has left
a receipt holds the region already.

What is never received is let go at the end of the sender, or when nobody can read the pipe any more that it
went into. Where that cannot be known (`Sent.doubted`), it is held for an hour, or until memory is short.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import select
import stat
import struct
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Final

from mori import settings
from mori._fork import in_child
from mori.errors import StoreWarning
from mori.memory.grace import call_later, has_ended
from mori.memory.lease import Lease
from mori.store.base import Store
from mori.store.processes import readers

__all__ = ["Sent", "arriving", "cancel", "expect", "leave", "nbytes", "settle", "via"]

_STAMP: Final = struct.Struct("<Q")  # 28 bits of the sheet's number, 24 of its descriptor, 12 of the place
_PLACES: Final = range(64, 4096)  # of a sheet; what is before them says that it is one
_LEAST_GRACE: Final = 0.05  # what lies in a pipe is received no sooner where there is no grace
_LEAST_PAUSE: Final = 0.005
_MOST_PAUSE: Final = 1.0  # seconds between the looks for receipts
# In graces, so that one setting changes all of them:
_PATIENCE: Final = 360  # for what may have been lost on its way: an hour
_SHORT_PATIENCE: Final = 6  # for the same where memory is short: a minute
_SCAN_SHARE: Final = 0.02  # of the processor that looking for readers may take


class Sent:
    """A reference that is on its way, and the lease of its region."""

    inode = 0  # of the pipe or the socket that it was sent through
    handle = -1  # of a socket
    is_message = True  # it will go through one, or to a process that is being started
    doubted: float = 0.0  # when it was seen first that it may be lost
    is_lost = False  # nobody can read it any more

    def __init__(self, lease: Lease) -> None:
        self.lease: Lease | None = lease  # None as soon as it is received, or given up
        self.since: float = time.monotonic()


class _Sheet:
    """A page with places for receipts."""

    __slots__ = ("kind", "lease", "places", "sent", "stamp")

    def __init__(self, lease: Lease, number: int) -> None:
        self.lease = lease
        self.kind = lease.home.kind
        self.stamp = number << 36 | lease.fd << 12
        self.places = iter(_PLACES)
        self.sent: dict[int, Sent] = {}


class _Receipts:
    """The references of this process that are on their way."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.RLock()
        self.sheets: list[_Sheet] = []
        self.current: dict[int, _Sheet] = {}  # by the kind of the store: has the place of the next reference
        self._received: dict[int, float] = {}  # by inode: when the last that has arrived was sent
        self._is_scheduled = False
        self._scanned = 0.0  # for readers
        self._scan = 0.0  # how long that took

    def expect(self, lease: Lease) -> tuple[Sent, bytes] | None:
        with self.lock:
            sheet = self.current.get(lease.home.kind)
            place = None if sheet is None else next(sheet.places, None)
            if sheet is None or place is None:
                if (sheet := _new_sheet(lease.home)) is None:
                    return None
                self.sheets.append(sheet)
                self.current[sheet.kind] = sheet
                place = next(sheet.places)
            sent = sheet.sent[place] = Sent(lease)
            stamp = sheet.stamp | place
        if not self._is_scheduled:
            self._schedule()
        return sent, _STAMP.pack(stamp)

    def all(self) -> list[Sent]:
        with self.lock:
            return [sent for sheet in self.sheets for sent in sheet.sent.values()]

    def collect(self) -> None:
        """Collect receipts, and schedule the next round as long as anything is on its way."""
        # In a child that was forked just now nothing of it is its own; a process that ends lets go of all.
        if self.pid != os.getpid() or has_ended():
            return
        with self.lock:
            self._is_scheduled = False
            self.settle()
            if self.sheets:
                self._schedule()

    def _schedule(self) -> None:
        self._is_scheduled = True
        call_later(self.collect, min(_MOST_PAUSE, _grace()))

    def settle(self, *, is_short: bool = False) -> None:
        with self.lock:
            for sheet in self.sheets:
                self._take_in(sheet)
            now, grace = time.monotonic(), _grace()
            if now - self._scanned >= max(grace, self._scan / _SCAN_SHARE):
                self._find_unread(grace)
            self._give_up(now, grace, is_short)
            self.sheets = [sheet for sheet in self.sheets if sheet.sent]
            self.current = {
                sheet.kind: sheet for sheet in self.sheets if sheet is self.current.get(sheet.kind)
            }
            if not self.sheets:
                self._received.clear()

    def _take_in(self, sheet: _Sheet) -> None:
        data = os.pread(sheet.lease.fd, _PLACES.stop, 0)
        for place in [place for place in sheet.sent if data[place : place + 1] == b"\1"]:
            sent = sheet.sent.pop(place)
            sent.lease = None
            if sent.inode and self._received.get(sent.inode, 0.0) < sent.since:
                self._received[sent.inode] = sent.since

    def _find_unread(self, grace: float) -> None:
        """See of each reference that has been on its way for a grace whether somebody can still read it."""
        began, processor = time.monotonic(), time.thread_time()
        self._scanned = began
        old = [sent for sent in self.all() if began - sent.since >= grace]
        found = readers({sent.inode for sent in old if sent.inode and sent.handle < 0})
        for sent in old:
            others: bool | None  # None: nobody can read it
            if not sent.inode:  # a message may wait for a lock before it is written; other bytes have a grace
                others = False if sent.is_message else None
            elif sent.handle >= 0:
                others = _is_read(sent.handle, sent.inode)
            elif found is None:
                others = False
            else:
                pids = found.get(sent.inode)
                others = None if pids is None else bool(pids - {self.pid})
            sent.is_lost = others is None
            # What was sent later has arrived: whoever has read this one was killed, or takes its time.
            if others and self._received.get(sent.inode, 0.0) <= sent.since:
                sent.doubted = 0.0
            else:
                sent.doubted = sent.doubted or (began if sent.inode else sent.since)
        self._scan = time.thread_time() - processor

    def _give_up(self, now: float, grace: float, is_short: bool) -> None:
        patience = grace * (_SHORT_PATIENCE if is_short else _PATIENCE)
        count = 0
        for sheet in self.sheets:
            for place, sent in [*sheet.sent.items()]:
                if sent.doubted and now - sent.doubted >= (grace if sent.is_lost else patience):
                    count += not sent.is_lost
                    del sheet.sent[place]
                    sent.lease = None
        if count and is_short:
            warnings.warn(
                f"memory is short: {count} shared objects that were sent to other processes are held no "
                "more, since nobody seems to be there to receive them. A process that unpickles one of them "
                "gets a RegionNotFoundError, unless another one holds it",
                StoreWarning,
                stacklevel=2,
            )

    def cancel(self, gone: list[Sent]) -> None:
        with self.lock:
            for sheet in self.sheets:
                for place in [place for place, sent in sheet.sent.items() if sent in gone]:
                    sheet.sent.pop(place).lease = None


def _grace() -> float:
    try:
        return max(settings.grace(), _LEAST_GRACE)
    except ValueError:  # share() tells the user
        return _LEAST_GRACE


def _new_sheet(home: Store) -> _Sheet | None:
    """Return a new sheet; None where there can be none: a grace has to do."""
    number = secrets.randbits(28) | 1
    with contextlib.suppress(OSError):
        held = home.create_receipts(number)
        if held is not None:
            lease = Lease(held, home)
            if lease.fd < 1 << 24:
                return _Sheet(lease, number)
    return None


def _is_read(handle: int, inode: int) -> bool | None:
    """Return whether the other end of a socket is open; None if it is not, False if this end is closed."""
    try:
        if os.fstat(handle).st_ino != inode:
            return False
        poll = select.poll()
        poll.register(handle, getattr(select, "POLLRDHUP", 0))
        return None if poll.poll(0) else True
    except (OSError, ValueError):
        return False


_receipts = _Receipts()
_last: tuple[int, bytes] | None = None  # the receipt that was left last


def expect(lease: Lease) -> tuple[Sent, bytes] | None:
    """Keep a lease until a receipt is left for a reference to its region; return what that has to carry.

    None where nobody could leave one: the reference has a grace, as any other.
    """
    if lease.home.is_lasting:
        return None
    lease.needs_grace = True
    return _receipts.expect(lease)


def via(sent: list[Sent], handle: int) -> None:
    """Note the pipe or socket that references are about to be sent through."""
    status = os.fstat(handle)
    for each in sent:
        each.inode = status.st_ino
        each.handle = -1 if stat.S_ISFIFO(status.st_mode) else handle


def cancel(sent: list[Sent]) -> None:
    """Drop the leases of references that could not be sent."""
    _receipts.cancel(sent)


def leave(home: Store, pid: int, stamp: bytes) -> None:
    """Leave the receipt for a reference with the process that has sent it, if that is still there.

    `home` is the store that its region is in.
    """
    global _last
    if (pid, stamp) == _last:
        return
    (number,) = _STAMP.unpack(stamp)
    with contextlib.suppress(OSError):
        sheet = home.open_receipts(pid, number >> 12 & 0xFFFFFF, number >> 36)
        if sheet is None:
            return
        try:
            if number & 0xFFF in _PLACES:
                os.pwrite(sheet.fileno(), b"\1", number & 0xFFF)
        finally:
            sheet.close()
    _last = pid, stamp


def settle() -> None:
    """Drop the leases of references that have arrived or seem to be lost: memory is short."""
    _receipts.settle(is_short=True)


def nbytes() -> int:
    """Return the bytes of the regions that are held since references to them are on their way."""
    leases = {id(sent.lease): sent.lease for sent in _receipts.all()}.values()
    found = 0
    for lease in leases:
        with contextlib.suppress(OSError):
            found += sum(os.fstat(fd).st_size for fd in (lease.held.fds if lease is not None else ()))
    return found


def arriving() -> Iterator[None]:
    """Yield each time when some of what is on its way now has arrived, or is given up.

    It ends when there is no more of it, or when none of it has arrived for a grace.
    """
    left = _receipts.all()
    while left:
        limit = time.monotonic() + _grace()
        for pause in itertools.count(1):
            _receipts.settle(is_short=True)
            count = len(left)
            left = [sent for sent in left if sent.lease is not None]
            if len(left) < count:
                yield
                break
            if time.monotonic() >= limit:
                return
            time.sleep(min(_LEAST_PAUSE * pause, 0.1))


@in_child
def _after_fork_in_child() -> None:
    """The references are the parent's: close its descriptors here."""
    global _receipts
    inherited, _receipts = _receipts, _Receipts()
    for sheet in inherited.sheets:
        for sent in sheet.sent.values():
            if sent.lease is not None:
                sent.lease.needs_grace = False  # no grace here
                sent.lease = None
