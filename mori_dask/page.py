"""The page on shared memory in a scheduler's dashboard, at ``/mori``.

Dask has no way for plugins to add a page: what is used of its insides stands in `add`, and a dashboard that
has them no more goes without.
"""

from __future__ import annotations

import html
import logging
import sys
import time
from typing import Any, Final

from distributed import Scheduler
from tornado.ioloop import IOLoop

from mori.adapters import readable_size
from mori_dask import mapped

__all__ = ["add"]

_PATH: Final = "/mori"
_INTERVAL: Final = 1000  # milliseconds; workers tell what they map every half second to five
_MOST: Final = 1000  # rows
_REGIONS: Final = {
    "name": "region",
    "nbytes": "bytes",
    "host": "host",
    "holders": "workers",
    "workers": "mapped by",
    "owner": "written by process",
    "age": "age",
    "saved": "saved",
}
_DOMAINS: Final = {
    "host": "host",
    "workers": "workers",
    "regions": "regions",
    "nbytes": "bytes",
    "holders": "mapped, times",
    "saved": "saved",
    "domain": "domain",
}
_BYTES: Final = "0.0 d"  # MB of 1,000,000 bytes, as mori counts them everywhere
_FORMATS: Final = {"nbytes": _BYTES, "saved": _BYTES, "age": "00:00:00"}
_logger = logging.getLogger("distributed.scheduler.mori")


def add(scheduler: Scheduler) -> None:
    """Add the page to a scheduler's dashboard, if it has one, and its name to those at the top; once."""
    if "distributed.dashboard.scheduler" not in sys.modules:  # Bokeh is not there, or not asked for
        return
    try:
        from bokeh.server.tornado import BokehTornado
        from distributed.dashboard.core import BokehApplication
        from distributed.dashboard.scheduler import template_variables

        server = scheduler.http_application
        boards = [board for board in server.applications if isinstance(board, BokehTornado)]
        if not boards or any(_PATH in board.app_paths for board in boards):
            return
        variables = template_variables(scheduler)
        # The list itself is what Dask's own pages were given.
        variables["pages"].append(_PATH.strip("/"))
        board = BokehApplication(
            {_PATH: _document}, scheduler, prefix=boards[0].prefix, template_variables=variables
        )
        server.add_application(board)
        board.initialize(IOLoop.current())
        board.start()
    except Exception:
        _logger.warning("The dashboard has no page on shared memory", exc_info=True)


def _document(scheduler: Scheduler, extra: dict[str, Any], document: Any) -> None:
    """Fill a document of Bokeh's: one for everybody who looks at the page."""
    from bokeh.models import (
        AllIndices,
        ColumnDataSource,
        DataTable,
        Div,
        NumberFormatter,
        StringFormatter,
        TableColumn,
    )
    from distributed.dashboard.components.scheduler import BOKEH_THEME, env

    def table(source: Any, titles: dict[str, str], height: int | None) -> Any:
        columns = [
            TableColumn(
                field=field,
                title=title,
                formatter=NumberFormatter(format=_FORMATS[field])
                if field in _FORMATS
                else StringFormatter(),  # which escapes
            )
            for field, title in titles.items()
        ]
        size: dict[str, Any] = (
            {"sizing_mode": "stretch_both"}
            if height is None
            else {"height": height, "sizing_mode": "stretch_width"}
        )
        return DataTable(source=source, columns=columns, index_position=None, **size)

    summary = Div(name="mori-summary", sizing_mode="stretch_width")
    domains = ColumnDataSource({field: [] for field in _DOMAINS}, name="mori-domains")
    regions = ColumnDataSource({field: [] for field in _REGIONS}, name="mori-regions")

    tables = table(domains, _DOMAINS, 160), table(regions, _REGIONS, None)

    def update() -> None:
        metrics = mapped.told_to(scheduler)
        summary.text = _summary(metrics)
        rows = _domains(scheduler, metrics), _regions(scheduler, metrics)
        for shown, data in zip(tables, rows, strict=True):
            if shown.source.data != data:
                shown.source.data = data
                shown.view.filter = (
                    AllIndices()
                )  # or browsers draw new rows alone, not what is new in old ones

    update()
    document.add_periodic_callback(update, _INTERVAL)
    for root in (summary, *tables):
        document.add_root(root)
    document.title = "Dask: Shared memory"
    document.template = env.get_template("simple.html")
    document.template_variables.update(extra)
    document.theme = BOKEH_THEME


def _summary(metrics: dict[str, Any]) -> str:
    found = mapped.domains(metrics)
    regions, saved = sum(domain.regions for domain in found), sum(domain.saved for domain in found)
    silent = len(metrics) - sum(len(domain.workers) for domain in found)
    text = (
        f"Shared memory that the workers have mapped: {_count(regions, 'region')} of "
        f"{readable_size(sum(domain.nbytes for domain in found))}. "
        f"Saved: {readable_size(saved)}, which they would hold in addition, had each of them its own copy."
    )
    if regions > _MOST:
        text += f" The table has the {_MOST} largest."
    if silent:
        text += f" Not installed on {_count(silent, 'worker')}: see mori_dask.install."
    return html.escape(text)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _host(scheduler: Scheduler, workers: tuple[str, ...]) -> str:
    return ", ".join(
        sorted({scheduler.workers[worker].host for worker in workers if worker in scheduler.workers})
    )


def _named(scheduler: Scheduler, workers: tuple[str, ...]) -> str:
    return ", ".join(str(scheduler.workers[worker].name) for worker in workers if worker in scheduler.workers)


def _domains(scheduler: Scheduler, metrics: dict[str, Any]) -> dict[str, list[Any]]:
    found = mapped.domains(metrics)
    return {
        "host": [_host(scheduler, domain.workers) for domain in found],
        "workers": [len(domain.workers) for domain in found],
        "regions": [domain.regions for domain in found],
        "nbytes": [domain.nbytes for domain in found],
        "holders": [domain.holders for domain in found],
        "saved": [domain.saved for domain in found],
        "domain": [domain.domain for domain in found],
    }


def _regions(scheduler: Scheduler, metrics: dict[str, Any]) -> dict[str, list[Any]]:
    found = mapped.collect(metrics)[:_MOST]
    known = mapped.names(metrics)
    now = time.time()
    told = [known.get((region.domain, region.region_id), (region.region_id, 0.0)) for region in found]
    return {
        "name": [name for name, _ in told],
        "nbytes": [region.nbytes for region in found],
        "host": [_host(scheduler, region.workers) for region in found],
        "holders": [len(region.workers) for region in found],
        "workers": [_named(scheduler, region.workers) for region in found],
        "owner": [region.owner for region in found],
        "age": [max(0, round(now - written)) if written else None for _, written in told],
        "saved": [region.saved for region in found],
    }
