"""References over other transports than tcp, and from a worker that is retired."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client, LocalCluster
from distributed.security import Security

import mori
from mori.memory import mapping as mappings


def look(x):
    mapping = mappings.held_by(np.asarray(x))
    return mapping is not None and mapping.shared, mori.shared_name(x), float(np.asarray(x).sum())


def _see_what_travels(protocol: str, security: Security | None = None, **options: Any) -> None:
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            protocol=protocol,
            security=security,
            dashboard_address=":0",
            **options,
        ) as cluster,
        Client(cluster) as client,
    ):
        array = mori.share(np.arange(100_000.0))
        name, total = mori.shared_name(array), array.sum()
        one, other = client.nthreads()
        assert one.startswith(protocol)
        assert client.submit(look, array, workers=[one]).result() == (True, name, total)
        kept = client.submit(lambda x: x, array, workers=[one], pure=False)
        assert client.submit(look, kept, workers=[other], pure=False).result() == (True, name, total)
        assert look(kept.result()) == look(client.gather(kept, direct=True)) == (True, name, total)
        made = client.submit(lambda: mori.share(np.arange(200_000.0)), workers=[one], pure=False)
        its_name = client.submit(mori.shared_name, made, workers=[one], pure=False).result()
        client.retire_workers([one])
        assert set(client.nthreads()) == {other}
        assert client.submit(look, made, pure=False).result() == (True, its_name, 19_999_900_000.0)
        del kept, made


def test_references_travel_over_web_sockets_and_from_a_retired_worker_to_another():
    _see_what_travels("ws://")


def test_references_travel_over_tls(tmp_path: Path):
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed, which makes the certificate")
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "certificate.pem")
    make = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*make, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    files = {
        f"tls_{who}_{what}": path
        for who in ("scheduler", "worker", "client")
        for what, path in (("key", key), ("cert", certificate))
    }
    _see_what_travels("tls://", Security(tls_ca_file=certificate, require_encryption=True, **files))
