"""What the dashboard and Prometheus show of shared memory is what the workers map."""

import asyncio
import shutil
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import prometheus_client
import pytest
from bokeh.client import pull_session
from distributed import Client, Future, Scheduler
from prometheus_client.parser import text_string_to_metric_families

import mori
import mori_dask
from tests.fresh import run_python
from tests.mori_dask.conftest import wait_until, worker_process


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return str(answer.read().decode())


def _base(client: Client) -> str:
    return client.dashboard_link.rsplit("/", 1)[0]


def _workers(client: Client) -> dict[str, dict[str, Any]]:
    return dict(sorted(client.sync(client.scheduler.identity, n_workers=-1)["workers"].items()))


def _everywhere(client: Client, array: np.ndarray, count: int = 3) -> list[Future]:
    """Have the first workers map it."""
    return [client.submit(lambda x: x, array, workers=[w], pure=False) for w in [*_workers(client)][:count]]


def _metrics(url: str) -> dict[str, dict[str, float]]:
    """Return what Prometheus would read of ours: values by the domain, or by nothing."""
    return {
        family.name: {sample.labels.get("domain", ""): sample.value for sample in family.samples}
        for family in text_string_to_metric_families(_get(url))
        if family.name.startswith("mori_")
    }


@pytest.fixture
def two(client: Client) -> Iterator[dict[str, Any]]:
    """Two regions that workers map: one by all three, one by the first."""
    arrays = [mori.share(np.ones(1_000_000)), mori.share(np.ones(100_000))]
    kept = [*_everywhere(client, arrays[0]), *_everywhere(client, arrays[1], 1)]
    by_name = {entry.name: entry for entry in mori.regions()}
    entries = [by_name[str(mori.shared_name(array))] for array in arrays]
    wait_until(lambda: [len(region.workers) for region in mori_dask.regions(client)] == [3, 1])
    yield {"entries": entries, "kept": kept}
    kept.clear()
    arrays.clear()
    wait_until(lambda: mori_dask.regions(client) == [])


def test_the_page_shows_each_region_with_who_maps_it_and_updates_by_itself(
    client: Client, two: dict[str, Any]
):
    large, small = two["entries"]
    names = [str(worker["name"]) for worker in _workers(client).values()]
    with pull_session(url=f"{_base(client)}/mori") as session:
        page = session.document
        assert page.title == "Dask: Shared memory"
        regions = dict(page.get_model_by_name("mori-regions").data)
        ages = regions.pop("age")
        assert regions == {
            "name": [large.name, small.name],
            "nbytes": [large.nbytes, small.nbytes],
            "host": ["127.0.0.1"] * 2,
            "holders": [3, 1],
            "workers": [", ".join(names), names[0]],
            "owner": [large.owner, small.owner],
            "saved": [2 * large.nbytes, 0],
        }
        for age, entry in zip(ages, two["entries"], strict=True):
            assert entry.age - 1 <= age <= entry.age + 30
        assert dict(page.get_model_by_name("mori-domains").data) == {
            "host": ["127.0.0.1"],
            "workers": [3],
            "regions": [2],
            "nbytes": [large.nbytes + small.nbytes],
            "holders": [4],
            "saved": [2 * large.nbytes],
            "domain": [mori_dask.domain()],
        }
        text = page.get_model_by_name("mori-summary").text
        assert text.startswith(
            "Shared memory that the workers have mapped: 2 regions of 8.8 MB. Saved: 16.0 MB"
        )
        assert "Not installed" not in text

        two["kept"].pop().release()

        def only_the_large_one() -> bool:
            # What the page is by now for whom it was opened: another look at the same session.
            with pull_session(session_id=session.id, url=f"{_base(client)}/mori") as again:
                now = again.document
                return (
                    list(now.get_model_by_name("mori-regions").data["name"]) == [large.name]
                    and "1 region of 8.0 MB" in now.get_model_by_name("mori-summary").text
                )

        wait_until(only_the_large_one)


def test_a_browser_draws_what_is_new_in_the_rows_that_it_has(client: Client, two: dict[str, Any]):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1300, "height": 800})
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))

        def rows() -> list[list[str]]:
            return [row.inner_text().split("\n") for row in page.locator(".slick-row").all()]

        page.goto(f"{_base(client)}/status")
        page.get_by_text("Mori", exact=True).click()
        wait_until(lambda: [row[2:4] for row in rows()[:1]] == [["2", "8.8 MB"]])
        large, small = two["entries"]
        assert [row[0] for row in rows()[1:]] == [large.name, small.name]
        two["kept"].pop().release()
        wait_until(lambda: [row[2:4] for row in rows()[:1]] == [["1", "8.0 MB"]])
        assert [row[0] for row in rows()[1:]] == [large.name]
        browser.close()
    assert faults == []


def test_dasks_own_pages_lead_to_it_once_however_often_mori_is_installed(client: Client):
    mori_dask.install(client)
    for page in ("status", "workers", "mori"):
        assert _get(f"{_base(client)}/{page}").count('<a href="mori">') == 1
    assert "bokeh" in _get(f"{_base(client)}/mori").lower()


def test_prometheus_reads_what_is_mapped_beside_dasks_own_metrics(client: Client, two: dict[str, Any]):
    large, small = two["entries"]
    here = mori_dask.domain()
    assert _metrics(f"{_base(client)}/metrics") == {
        "mori_regions": {here: 2},
        "mori_region_bytes": {here: large.nbytes + small.nbytes},
        "mori_holders": {here: 4},
        "mori_saved_bytes": {here: 2 * large.nbytes},
    }
    assert "dask_scheduler_workers" in _get(f"{_base(client)}/metrics")
    told = [
        _metrics(f"http://127.0.0.1:{worker['services']['dashboard']}/metrics")
        for worker in _workers(client).values()
    ]
    counts = [2, 1, 1]
    sizes = [large.nbytes + small.nbytes, large.nbytes, large.nbytes]
    assert told == [
        {
            "mori_worker_regions": {"": count},
            "mori_worker_mapped_bytes": {"": nbytes},
            "mori_worker_made_bytes": {"": 0},
        }
        for count, nbytes in zip(counts, sizes, strict=True)
    ]


def test_a_scheduler_has_its_page_below_its_prefix_or_none_without_a_dashboard_and_takes_its_metrics_away():
    async def look(path: str, **options: Any) -> tuple[int, str]:
        async with Scheduler(dashboard_address="127.0.0.1:0", host="127.0.0.1", **options) as scheduler:
            url = f"http://127.0.0.1:{scheduler.http_server.port}{path}"
            try:
                return 200, await asyncio.to_thread(_get, url)
            except urllib.error.HTTPError as error:
                return error.code, ""

    with dask.config.set({"distributed.scheduler.preload": ["mori_dask"]}):
        status, page = asyncio.run(look("/cluster/mori", http_prefix="cluster"))
        assert (status, page.count('<a href="mori">')) == (200, 1)
        assert asyncio.run(look("/mori", http_prefix="cluster"))[0] == 404
        assert asyncio.run(look("/mori", dashboard=False))[0] == 404
        assert "mori_" not in prometheus_client.generate_latest().decode()


def test_a_worker_with_another_version_is_told_to_every_client_once(client: Client, tmp_path: Path):
    other = tmp_path / "other.py"
    other.write_text('import mori\nmori.__version__ = "9.9"\n', encoding="utf-8")
    preload = f"DASK_DISTRIBUTED__WORKER__PRELOAD=['{other}', 'mori_dask']"
    address = client.scheduler.address
    before = {*_workers(client)}
    assert client.submit(int, pure=False).result() == 0
    assert client.get_events("warn") == ()  # all are of one version

    def told(seen: list[warnings.WarningMessage]) -> list[str]:
        texts = [str(warning.message) for warning in seen]
        assert not any("9.9" not in text for text in texts)
        return texts

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with worker_process(address, before=["env", preload], preload=False):
            client.wait_for_workers(4)
            wait_until(lambda: told(seen))
            (new,) = {*_workers(client)} - before
            assert f"{mori.__version__} on the scheduler, 9.9 on worker {new}" in told(seen)[0]
            client.submit(int, pure=False).result()
            with Client(address, set_as_default=False) as late:
                late.submit(int, pure=False).result()
                late.submit(int, pure=False).result()
                wait_until(lambda: len(told(seen)) == 3)  # to both
        wait_until(lambda: len(_workers(client)) == 3)
        with Client(address, set_as_default=False) as later:
            later.submit(int, pure=False).result()
    assert len(client.get_events("warn")) == 2


_WITHOUT = """
import asyncio, logging, sys, urllib.error, urllib.request
sys.modules["bokeh"] = sys.modules["prometheus_client"] = None
logging.basicConfig(level="WARNING", stream=sys.stdout)
import mori_dask
from distributed import Scheduler

def status(port, path):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}{path}").status
    except urllib.error.HTTPError as error:
        return error.code

async def main():
    async with Scheduler(dashboard_address="127.0.0.1:0", host="127.0.0.1") as scheduler:
        print("told:", "mori" in scheduler.plugins)
        for path in ("/mori", "/metrics"):
            print("told:", await asyncio.to_thread(status, scheduler.http_server.port, path))

asyncio.run(main())
"""


def test_without_bokeh_and_prometheus_client_nothing_happens():
    printed = run_python(_WITHOUT)
    assert "WARNING" not in printed
    assert "ERROR" not in printed
    told = [line.removeprefix("told: ") for line in printed.splitlines() if line.startswith("told: ")]
    assert told == ["True", "404", "200"]  # Dask says at /metrics that it has none
