"""Which elements a container has returned: a write to one is found, and not lost.

Lists, dicts and instances tell nobody that they were written to. So the block that an element came from is
kept until nobody holds an element of it, and it would be written as it stands in the region.
"""

from __future__ import annotations

import itertools
import threading
from typing import Any, Final

from mori._fork import in_child

__all__ = ["Tracker", "lock"]

_FEW: Final = 16  # blocks that are kept before any is looked at
_CHECKED: Final = 2  # that are looked at for each one that is read: many that were held are soon forgotten

lock: threading.RLock = threading.RLock()
"""Between reading a block and holding an element of it, no other thread may drop the block."""


class Tracker:
    """The blocks of a container that were read, by their numbers.

    Its methods, and taking an element out of a block, need `lock`.
    """

    def __init__(self) -> None:
        self._read: dict[int, list[Any]] = {}
        self._is_asked = False

    def _load(self, number: int) -> list[Any]:
        """Read a block."""
        raise NotImplementedError

    def _is_same(self, number: int, block: list[Any]) -> bool:
        """Return whether a block would be written as it stands in the region."""
        raise NotImplementedError

    def _is_held(self, block: list[Any]) -> bool:
        """Return whether anybody else holds an element, or a part of one that can be written to."""
        raise NotImplementedError

    def _block(self, number: int) -> list[Any]:
        """Return a block, read now if it is not kept."""
        block = self._read.get(number)
        if block is None:
            self._drop_some()
            block = self._read.setdefault(number, self._load(number))
        return block

    def is_changed(self) -> bool:
        """Return whether an element was written to."""
        if not self._read:
            return False
        with lock:
            self._drop([*self._read])
            return not all(self._is_unchanged(number, block) for number, block in [*self._read.items()])

    def is_idle(self) -> bool:
        """Return whether nobody holds an element, and none was written to."""
        if not self._read:
            return True
        with lock:
            if self._is_asked:  # by an element that refers to the container: who asked first goes on
                return True
            self._is_asked = True
            try:
                self._drop([*self._read])
            finally:
                self._is_asked = False
            return not self._read

    def _is_unchanged(self, number: int, block: list[Any]) -> bool:
        try:
            return self._is_same(number, block)
        except Exception:  # what is in it now does not pickle, or another thread writes to it at this moment
            return False

    def _drop_some(self) -> None:
        if len(self._read) >= _FEW:
            self._drop([*itertools.islice(self._read, _CHECKED)])

    def _drop(self, numbers: list[int]) -> None:
        """Forget those blocks that nobody holds an element of, and that were not written to."""
        for number in numbers:
            block = self._read.pop(number)  # to the end, if it stays: others are looked at next
            self._read[number] = block
            del block
            try:
                if not self._is_held(self._read[number]) and self._is_unchanged(number, self._read[number]):
                    del self._read[number]
            except RecursionError:  # containers deeper in each other than Python follows: it stays
                continue


@in_child
def _after_fork_in_child() -> None:
    if lock.acquire(blocking=False):  # it was free, or the forking thread has it and lets go of it
        lock.release()
    else:  # no thread of the child holds it
        lock._at_fork_reinit()  # type: ignore[attr-defined]
