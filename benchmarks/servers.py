"""The ways whose memory a server keeps: Ray's object store and vineyard.

A server is started for a job and ended after it, by whoever started it; it listens to this machine alone.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.jobs import JOBS
from benchmarks.peer import Peer, Published

__all__ = ["SERVED"]

_PATIENCE: Final = 60  # seconds for a server to come up, or to go
_RAY_SETTINGS: Final = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),  # of this run
    "RAY_USAGE_STATS_ENABLED": "0",
}
_RAY: Final = """
import sys
import ray
context = ray.init(
    address="local", num_cpus=1, include_dashboard=False, object_store_memory=2 << 30, _temp_dir=sys.argv[1],
    _node_ip_address="127.0.0.1", log_to_driver=False, logging_level="ERROR", configure_logging=False,
)
print(context.address_info["gcs_address"], flush=True)
sys.stdin.read()
ray.shutdown()
"""


@contextmanager
def _serve_ray(folder: Path) -> Iterator[str]:
    server = subprocess.Popen(
        [sys.executable, "-c", _RAY, str(folder)],
        env={**os.environ, **_RAY_SETTINGS},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        if not address:
            raise RuntimeError("Ray did not start")
        yield address
    finally:
        server.communicate(timeout=_PATIENCE)


def _connect_ray(address: str) -> None:
    import ray

    ray.init(address, log_to_driver=False, logging_level="ERROR", configure_logging=False)


def _publish_ray(obj: Any, path: Path) -> Published:
    import ray
    from ray import cloudpickle

    kept = [ray.put(obj)]
    return Published(lambda: cloudpickle.dumps(kept[0]), kept.clear)


def _open_ray(message: bytes) -> Any:
    import ray

    return ray.get(pickle.loads(message))


@contextmanager
def _serve_vineyard(folder: Path) -> Iterator[str]:
    found = importlib.util.find_spec("vineyard")
    assert found is not None
    assert found.origin is not None
    socket = folder / "vineyard.sock"
    program = Path(found.origin).parent / "bdist" / "vineyardd"
    arguments = [f"--socket={socket}", "--size=2Gi", "--meta=local", "--rpc=false", "--skip_launch_etcd=true"]
    environment = {**os.environ, "GLOG_log_dir": str(folder)}
    quiet = subprocess.DEVNULL
    server = subprocess.Popen(
        [program, *arguments], env=environment, stdin=quiet, stdout=quiet, stderr=quiet, cwd=folder
    )
    try:
        limit = time.monotonic() + _PATIENCE
        while not socket.exists():
            if server.poll() is not None or time.monotonic() > limit:
                raise RuntimeError(f"vineyardd did not start (exit code {server.returncode})")
            time.sleep(0.05)
        yield str(socket)
    finally:
        server.terminate()
        try:
            server.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


_clients: list[Any] = []


def _connect_vineyard(address: str) -> None:
    import vineyard

    _clients.append(vineyard.connect(address))


def _publish_vineyard(obj: Any, path: Path) -> Published:
    client = _clients[0]
    name = client.put(obj)
    return Published(lambda: pickle.dumps(name, 5), lambda: client.delete(name, deep=True, force=True))


def _open_vineyard(message: bytes) -> Any:
    return _clients[0].get(pickle.loads(message))


SERVED: Final = (
    Peer(
        "ray.put",
        "ray",
        frozenset(JOBS),
        _publish_ray,
        _open_ray,
        distribution="ray",
        environment=_RAY_SETTINGS,
        serve=_serve_ray,
        connect=_connect_ray,
    ),
    Peer(
        "vineyard",
        "vineyard",
        frozenset({"array", "frame"}),
        _publish_vineyard,
        _open_vineyard,
        distribution="vineyard",
        environment={"PYTHONWARNINGS": "ignore::UserWarning"},
        serve=_serve_vineyard,
        connect=_connect_vineyard,
    ),
)
