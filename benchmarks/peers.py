"""The ways to hand an object to another process that `run.py` compares: publish, open, release."""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import mori

__all__ = ["PEERS", "Peer", "Published", "private_bytes"]


class Published(NamedTuple):
    """What was published: the message for a reader, and how to take it back."""

    message: bytes
    release: Callable[[], None]


@dataclass(frozen=True)
class Peer:
    """One way."""

    name: str
    library: str
    publish: Callable[[Any, Path], Published]
    open: Callable[[bytes], Any]

    def is_installed(self) -> bool:
        """Whether its library is there."""
        return importlib.util.find_spec(self.library) is not None


def private_bytes() -> int:
    """Return the anonymous memory of this process that is resident."""
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def _nothing() -> None:
    pass


def _publish_mori(obj: Any, path: Path) -> Published:
    kept = [mori.share(obj)]
    return Published(pickle.dumps(kept[0], 5), kept.clear)


def _publish_pickle(obj: Any, path: Path) -> Published:
    return Published(pickle.dumps(obj, 5), _nothing)


def _publish_joblib(obj: Any, path: Path) -> Published:
    import joblib

    joblib.dump(obj, path)
    return Published(str(path).encode(), path.unlink)


def _open_joblib(message: bytes) -> Any:
    import joblib

    return joblib.load(message.decode(), mmap_mode="r")


_attached: list[shared_memory.SharedMemory] = []


def _publish_stdlib(obj: Any, path: Path) -> Published:
    """Copy into a SharedMemory block as its documentation does; of a frame the values, as one array."""
    values = obj if isinstance(obj, np.ndarray) else obj.to_numpy()
    block = shared_memory.SharedMemory(create=True, size=values.nbytes)
    copy = np.ndarray(values.shape, values.dtype, buffer=block.buf)
    copy[...] = values
    del copy

    def release() -> None:
        block.close()
        block.unlink()

    columns = None if isinstance(obj, np.ndarray) else list(obj.columns)
    return Published(pickle.dumps((block.name, values.shape, values.dtype.str, columns), 5), release)


def _open_stdlib(message: bytes) -> Any:
    import pandas as pd

    name, shape, dtype, columns = pickle.loads(message)
    block = shared_memory.SharedMemory(name=name)
    _attached.append(block)
    values = np.ndarray(shape, dtype, buffer=block.buf)
    return values if columns is None else pd.DataFrame(values, columns=columns, copy=False)


def _publish_arrow(obj: Any, path: Path) -> Published:
    import pandas as pd
    import pyarrow as pa

    frame = obj if isinstance(obj, pd.DataFrame) else pd.DataFrame({"x": obj})
    table = pa.Table.from_pandas(frame)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return Published(str(path).encode(), path.unlink)


def _open_arrow(message: bytes) -> Any:
    import pyarrow as pa

    return pa.ipc.open_file(pa.memory_map(message.decode())).read_all().to_pandas(split_blocks=True)


PEERS = {
    peer.name: peer
    for peer in (
        Peer("mori", "mori", _publish_mori, pickle.loads),
        Peer("pickle over a pipe", "pickle", _publish_pickle, pickle.loads),
        Peer("stdlib SharedMemory", "multiprocessing", _publish_stdlib, _open_stdlib),
        Peer("joblib memmap", "joblib", _publish_joblib, _open_joblib),
        Peer("Arrow IPC, memory map", "pyarrow", _publish_arrow, _open_arrow),
    )
}
