"""The ways that hand over arrays and objects: mori, pickle, and libraries of shared memory."""

from __future__ import annotations

import itertools
import os
import pickle
import shutil
from multiprocessing import shared_memory
from multiprocessing.reduction import ForkingPickler
from multiprocessing.shared_memory import ShareableList
from pathlib import Path
from typing import Any, Final

import numpy as np

import mori
from benchmarks.jobs import JOBS
from benchmarks.peer import Peer, Published

__all__ = ["OBJECTS"]

_ALL: Final = frozenset(JOBS)
_MORI: Final = {"MORI_GRACE": "1"}  # seconds; ten would hold what each round has published
_number = itertools.count()
_attached: dict[str, Any] = {}  # what a reader has open under a name


def _unique() -> str:
    return f"mori-bench-{os.getpid()}-{next(_number)}"


def _publish_mori(obj: Any, path: Path) -> Published:
    kept = [mori.share(obj)]
    return Published(lambda: pickle.dumps(kept[0], 5), kept.clear)


def _publish_pickle(obj: Any, path: Path) -> Published:
    kept = [pickle.dumps(obj, 5)]
    return Published(lambda: kept[0], kept.clear)


def _publish_stdlib(obj: Any, path: Path) -> Published:
    """Copy into a SharedMemory block as its documentation does; of a frame the values, as one array."""
    if isinstance(obj, list):
        words = ShareableList(obj)
        return Published(lambda: pickle.dumps(words, 5), lambda: _unlink(words.shm))
    values = obj if isinstance(obj, np.ndarray) else obj.to_numpy()
    block = shared_memory.SharedMemory(create=True, size=values.nbytes)
    copy = np.ndarray(values.shape, values.dtype, buffer=block.buf)
    copy[...] = values
    del copy
    columns = None if isinstance(obj, np.ndarray) else list(obj.columns)
    message = pickle.dumps((block.name, values.shape, values.dtype.str, columns), 5)
    return Published(lambda: message, lambda: _unlink(block))


def _unlink(block: shared_memory.SharedMemory) -> None:
    block.close()
    block.unlink()


def _open_stdlib(message: bytes) -> Any:
    found = pickle.loads(message)
    if isinstance(found, ShareableList):
        return found
    name, shape, dtype, columns = found
    if name not in _attached:
        _attached[name] = shared_memory.SharedMemory(name=name)
    values = np.ndarray(shape, dtype, buffer=_attached[name].buf)
    if columns is None:
        return values
    import pandas as pd

    return pd.DataFrame(values, columns=columns, copy=False)


def _detach_stdlib() -> None:
    for block in _attached.values():
        block.close()
    _attached.clear()


def _publish_joblib(obj: Any, path: Path) -> Published:
    import joblib

    joblib.dump(obj, path)
    return Published(lambda: os.fsencode(path), path.unlink)


def _open_joblib(message: bytes) -> Any:
    import joblib

    return joblib.load(os.fsdecode(message), mmap_mode="r")


def _publish_torch(strategy: str) -> Any:
    def publish(obj: Any, path: Path) -> Published:
        import torch
        from torch import multiprocessing

        multiprocessing.set_sharing_strategy(strategy)
        kept = [torch.from_numpy(obj).share_memory_()]
        return Published(lambda: bytes(ForkingPickler.dumps(kept[0])), kept.clear)

    return publish


def _open_torch(message: bytes) -> Any:
    return pickle.loads(message).numpy()


def _publish_tensordict(obj: Any, path: Path) -> Published:
    import torch
    from tensordict import TensorDict

    kept = TensorDict({"x": torch.from_numpy(obj)}, []).memmap(prefix=str(path))
    return Published(lambda: pickle.dumps(kept, 5), lambda: shutil.rmtree(path))


def _open_tensordict(message: bytes) -> Any:
    return pickle.loads(message)["x"].numpy()


def _publish_sharedarray(obj: Any, path: Path) -> Published:
    import SharedArray

    name = _unique()
    SharedArray.create(f"shm://{name}", obj.shape, obj.dtype)[...] = obj
    return Published(name.encode, lambda: SharedArray.delete(name))


def _open_sharedarray(message: bytes) -> Any:
    import SharedArray

    return SharedArray.attach(f"shm://{message.decode()}")


def _publish_ultradict(obj: Any, path: Path) -> Published:
    from UltraDict import UltraDict

    name = _unique()
    shared = UltraDict(name=name)
    shared["x"] = obj
    return Published(name.encode, shared.unlink)


def _open_ultradict(message: bytes) -> Any:
    from UltraDict import UltraDict

    return UltraDict(name=message.decode(), create=False, auto_unlink=False)["x"]


OBJECTS: Final = (
    Peer("mori", "mori", _ALL, _publish_mori, pickle.loads, environment=_MORI, is_fresh=True),
    Peer(
        "mori, MORI_POOL=1G",
        "mori",
        _ALL,
        _publish_mori,
        pickle.loads,
        environment={**_MORI, "MORI_POOL": "1G"},
        is_fresh=True,
    ),
    Peer("pickle over a pipe", "pickle", _ALL, _publish_pickle, pickle.loads),
    Peer(
        "stdlib SharedMemory",
        "multiprocessing",
        frozenset({"array", "frame", "strings"}),
        _publish_stdlib,
        _open_stdlib,
        detach=_detach_stdlib,
        note="of a list, ShareableList",
    ),
    Peer(
        "joblib memmap",
        "joblib",
        frozenset({"array", "frame", "text frame"}),
        _publish_joblib,
        _open_joblib,
        distribution="joblib",
    ),
    Peer(
        "torch, file_system",
        "torch",
        frozenset({"array"}),
        _publish_torch("file_system"),
        _open_torch,
        distribution="torch",
    ),
    Peer(
        "torch, file_descriptor",
        "torch",
        frozenset({"array"}),
        _publish_torch("file_descriptor"),
        _open_torch,
        distribution="torch",
        is_passed_once=True,
    ),
    Peer(
        "tensordict memmap",
        "tensordict",
        frozenset({"array"}),
        _publish_tensordict,
        _open_tensordict,
        distribution="tensordict",
    ),
    Peer(
        "SharedArray",
        "SharedArray",
        frozenset({"array"}),
        _publish_sharedarray,
        _open_sharedarray,
        distribution="SharedArray",
    ),
    Peer(
        "UltraDict",
        "UltraDict",
        frozenset({"array", "dict", "int dict", "arrays"}),
        _publish_ultradict,
        _open_ultradict,
        distribution="UltraDict",
        note="as one value, since one entry each takes a dump for every few hundred",
    ),
)
