"""References over another transport than tcp, and from a worker that is retired."""

import numpy as np
from distributed import Client, LocalCluster

import mori
from mori import region


def look(x):
    mapping = region.held_by(np.asarray(x))
    return mapping is not None and mapping.shared, mori.shared_name(x), float(np.asarray(x).sum())


def test_references_travel_over_web_sockets_and_from_a_retired_worker_to_another():
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, protocol="ws://", dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        array = mori.share(np.arange(100_000.0))
        name, total = mori.shared_name(array), array.sum()
        one, other = client.scheduler_info()["workers"]
        assert one.startswith("ws://")
        assert client.submit(look, array, workers=[one]).result() == (True, name, total)
        kept = client.submit(lambda x: x, array, workers=[one], pure=False)
        assert client.submit(look, kept, workers=[other], pure=False).result() == (True, name, total)
        made = client.submit(lambda: mori.share(np.arange(200_000.0)), workers=[one], pure=False)
        its_name = client.submit(mori.shared_name, made, workers=[one], pure=False).result()
        client.retire_workers([one])
        assert set(client.scheduler_info()["workers"]) == {other}
        assert client.submit(look, made, pure=False).result() == (True, its_name, 19_999_900_000.0)
        del kept, made
