"""Sessions come and go, functions stay for one, and nobody has to import mori_ray."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

import mori
from mori_ray import lifetime
from tests import stored
from tests.mori_ray.conftest import ROOT, connect, regions, wait_until
from tests.mori_ray.tasks import call, mapped, name_of


def test_a_session_ends_with_all_that_it_kept_and_the_object_goes_on(no_ray: None, tmp_path: Path) -> None:
    x = mori.share(np.arange(1000))
    name = mori.shared_name(x)
    reads, its_name = _reads()

    connect()
    assert ray.get(call.remote(name_of, x)) == name
    first = lifetime.session()
    assert first is not None
    assert not first._captured
    assert ray.get(reads.remote()) == (its_name, True)
    assert len(first._captured) == 1
    del first

    ray.shutdown()
    assert float(x.sum()) == 499500

    connect()  # the token of the first session is nobody's now
    assert ray.get(call.remote(name_of, x)) == name
    assert ray.get(reads.remote()) == (its_name, True)
    ref = call.remote(name_of, mori.share(np.arange(10)))
    del reads
    wait_until(lambda: len(regions()) < 4)
    assert its_name in regions()
    ray.shutdown()
    del ref
    wait_until(lambda: regions() == {name})


def _reads() -> tuple[Any, str | None]:
    captured = mori.share(np.arange(200_000))

    @ray.remote
    def reads() -> tuple[str | None, bool]:
        return mori.shared_name(captured), mori.shared_name(captured) in mapped()

    return reads, mori.shared_name(captured)


def run(script: str, **env: str) -> str:
    """Run a script in a process of its own and return what it prints."""
    head = """
        import os, sys
        def connect():
            import ray
            ray.init(address="local", num_cpus=1, include_dashboard=False, object_store_memory=80 << 20,
                     logging_level="ERROR", log_to_driver=False)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_nobody_has_to_import_mori_ray(no_ray: None) -> None:
    printed = run("""
        import mori, numpy as np
        x = mori.share(np.arange(100_000))        # before ray is there
        assert "ray" not in sys.modules and "mori_ray" not in sys.modules
        connect()
        import ray
        @ray.remote
        def receives(x):
            return "mori_ray" in sys.modules, int(x.sum())
        @ray.remote
        def creates():
            import mori
            y = mori.share(np.arange(1000))
            return "mori_ray" in sys.modules, y
        print(ray.get(receives.remote(x)))
        print("mori_ray" in sys.modules)
        there, y = ray.get(creates.remote())
        print(there, mori.is_shared(y), int(y.sum()))
        print(ray.get(receives.remote(x)))
        ray.shutdown()
    """)
    assert printed.split("\n") == ["(True, 4999950000)", "True", "True False 499500", "(True, 4999950000)"]


def test_an_actor_class_captures_a_region(no_ray: None) -> None:
    # In a process of its own: Ray keeps actor classes, with what they have captured, until it ends.
    printed = run("""
        import mori, numpy as np, ray
        captured = mori.share(np.arange(200_000))
        @ray.remote
        class Reads:
            def name(self):
                return mori.shared_name(captured)
        connect()
        print(ray.get(Reads.remote().name.remote()) == mori.shared_name(captured))
    """)
    assert printed == "True"


def test_mori_does_not_import_ray() -> None:
    assert run("import mori, numpy\nmori.share(numpy.arange(3))\nprint('ray' in sys.modules)") == "False"


def test_the_files_store_is_empty_when_the_driver_has_ended(no_ray: None, tmp_path: Path) -> None:
    printed = run(
        """
        import mori, numpy as np, ray
        connect()
        @ray.remote
        def total(x):
            return int(x.sum())
        kept = mori.share(np.arange(1000))
        print(ray.get([total.remote(kept), total.remote(mori.share(np.arange(100)))]))
        """,
        MORI_STORE=f"files:{tmp_path}",
    )
    assert printed == "[499500, 4950]"
    wait_until(lambda: not stored.names(tmp_path))


def test_through_ray_client_everything_goes_by_value_and_the_log_says_so_once(no_ray: None) -> None:
    pytest.importorskip("grpc")
    printed = run("""
        import logging, sys
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("said %(message)s"))
        logging.getLogger("mori_ray").addHandler(handler)
        import mori, numpy as np, ray
        from ray.cluster_utils import Cluster
        from ray.util.client.ray_client_helpers import ray_start_client_server_for_address
        # Started before there are threads of gRPC, in the midst of which a fork may hang.
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        with ray_start_client_server_for_address(cluster.address) as api:
            x = mori.share(np.arange(100_000))
            @api.remote
            def look(theirs):
                return mori.is_shared(theirs), int(theirs.sum())
            @api.remote
            def closure():
                return mori.is_shared(x), int(x.sum())
            print(api.get(look.remote(x)), api.get(look.remote(api.put(x))), api.get(closure.remote()))
            back = api.get(api.put(x))
            print(mori.is_shared(back), int(back.sum()))
        cluster.shutdown()
    """)
    one = "(False, 4999950000)"
    said, *rest = printed.split("\n")
    assert said.startswith("said A shared object goes to a task by value")
    assert "Ray Client" in said
    assert rest == [f"{one} {one} {one}", "False 4999950000"]
