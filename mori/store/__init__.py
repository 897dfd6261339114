"""Stores: where regions live and how a name finds them. This file says which one a region goes to.

`memfd` and `files` keep the interface of `base.Store`, and so does `paths`: files that users named, which no
setting chooses.
"""

from __future__ import annotations

import functools
import os
import sys
import warnings
from typing import Final

from mori import settings
from mori._imports import load
from mori.errors import StoreError, StoreWarning
from mori.store.base import FILES, MEMFD, PATH, R, Store

# At once and not at their first use: a child that another thread forks in the middle of an import would wait
# for ever for it to end. A Pool forks in a thread while another one opens what arrives.
if os.name == "posix":
    from mori.store.files import FilesStore
    from mori.store.memfd import MemfdStore
    from mori.store.paths import PathStore

__all__ = ["FILES", "MEMFD", "PATH", "R", "current", "directory", "of_kind"]

_SHM: Final = "/dev/shm"

_stores: dict[str, Store] = {}
_PATHS: Final = PathStore()


def _open_default() -> Store:
    """Open what MORI_STORE stands for when it is not set: memfd, and files where that cannot work."""
    if sys.platform == "linux":
        try:
            return _open("memfd")
        except StoreError as error:
            store = _open("files")
            warnings.warn(
                f"shared regions go to files in {store.name.partition(':')[2]}, since memfd cannot be used "
                f"here: {error.found}. Every process that is to open them has to choose the same; set "
                "MORI_STORE=files in all of them to be sure of it, and to see this no more",
                StoreWarning,
                stacklevel=2,
            )
            return store
    return _open("files")


def _temporary() -> str:
    directory: str = load("tempfile").gettempdir()  # which imports much, for those few who need it
    return directory


def _shared_dir() -> str:
    """Return the directory where programs put what they share in memory, or another one without it."""
    if sys.platform == "linux" and os.path.isdir(_SHM) and os.access(_SHM, os.W_OK | os.X_OK):
        return _SHM
    return _temporary()


def _files_dir() -> str:
    directory = _shared_dir()
    if sys.platform != "linux" or directory == _SHM:
        return directory
    warnings.warn(
        f"shared regions go to files in {directory}, which may be on a disk: "
        f"{_SHM} is {'not writable' if os.path.isdir(_SHM) else 'missing'}. Mount a tmpfs there, or set "
        "MORI_STORE=files:DIR to say where they are to go",
        StoreWarning,
        stacklevel=2,
    )
    return directory


@functools.cache
def _memfd() -> MemfdStore:
    return MemfdStore()


def _open(setting: str) -> Store:
    kind, _, directory = setting.partition(":")
    if kind == "memfd" and not directory:
        if sys.platform != "linux":
            raise StoreError(
                store=setting, found=f"{sys.platform} has no memfd", remedy="Set MORI_STORE=files"
            )
        home = _memfd()
        home.prepare()
        return home
    if kind == "files":
        if os.name != "posix":
            raise StoreError(store=setting, found="it needs a POSIX system", remedy="Use one")
        return FilesStore(directory or _files_dir())
    raise StoreError(
        store=setting,
        found="there is no such store",
        remedy="Set MORI_STORE to memfd, files or files:DIR, or leave it unset",
    )


def current() -> Store:
    """Return the store that new regions go to."""
    setting = settings.store()
    store = _stores.get(setting)
    if store is None:
        # Two threads may open it at once: all of them go on with one.
        store = _stores.setdefault(setting, _open(setting) if setting else _open_default())
    return store


def directory() -> str:
    """Return a directory that the processes of this domain have in common: of the files store, its own."""
    return current().name.partition(":")[2] or _shared_dir()


def of_kind(kind: int) -> Store:
    """Return the store that a reference of this kind is looked up in."""
    if kind == MEMFD and sys.platform == "linux":
        return _memfd()  # whether or not one could be made
    if kind == PATH:
        return _PATHS
    if kind == R:
        r: Store = load("mori.store.r").STORE
        return r
    store = current()
    if store.kind == kind:
        return store
    setting = ("memfd", "files")[kind]
    if setting not in _stores:
        return _stores.setdefault(setting, _open(setting))
    return _stores[setting]
