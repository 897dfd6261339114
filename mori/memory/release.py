"""`Release`: what gives a region back to its store, when nobody of this process needs it any more.

Invariant: no descriptor is closed that is another file's by now. A program may close descriptors that it does
not know, as one does that becomes a daemon, and their numbers are soon used again.
"""

from __future__ import annotations

import os

from mori.store.base import Held, Store, forsake

__all__ = ["Files", "Release", "files_of"]

Files = list[tuple[int, int] | None]
"""Device and inode of each file that is held; None for a descriptor that is closed."""


class Release:
    """What is left of a lease when it has no users: calling it gives the region back."""

    __slots__ = ("_files", "held", "home")

    def __init__(self, held: Held, home: Store, files: Files | None) -> None:
        self.held = held
        self.home = home
        self._files = files  # None if a signal came before they were known

    def __call__(self) -> None:
        now = files_of(self.held)
        files = now if self._files is None else self._files
        own = []
        for owner, then, is_now in zip(self.held.owners, files, now, strict=True):
            if then is not None and then == is_now:
                own.append(owner)
            elif not owner.closed:
                forsake(owner)
        self.home.release(self.held._replace(owners=tuple(own)))

    @property
    def is_whole(self) -> bool:
        """Whether all of its descriptors are still those of the region."""
        return self._files is not None and None not in self._files and files_of(self.held) == self._files


def files_of(held: Held) -> Files:
    """Return the files that descriptors are open for now."""
    files: Files = []
    for fd in held.fds:
        try:
            status = os.fstat(fd)
        except OSError:
            files.append(None)
        else:
            files.append((status.st_dev, status.st_ino))
    return files
