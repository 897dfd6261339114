"""The pictures of a run: time and memory against size, and against the number of readers.

`python -m benchmarks.plots` draws them anew from results.json.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

from benchmarks.results import FILE, Results

__all__ = ["draw"]

_MORI: Final = "mori"
_PICKLE: Final = "pickle over a pipe"
_COLORS: Final = {_MORI: "#1b7f5c", _PICKLE: "#c2571a"}
_GREY: Final = "#777777"
Series = tuple[list[float], list[float]]


def _series(points: list[dict[str, Any]], way: str, figure: str, unit: float, least: float) -> Series:
    found = [
        (point["x"], max(point[figure] / unit, least))
        for point in points
        if point["way"] == way and figure in point
    ]
    return [x for x, _ in found], [y for _, y in found]


class _Sheet:
    """Some pairs of axes beside each other."""

    def __init__(self, count: int) -> None:
        from matplotlib.figure import Figure

        self.figure = Figure(figsize=(5.4 * count, 4.2), layout="constrained")
        self.axes = self.figure.subplots(1, count)

    def line(self, at: int, series: Series, label: str, color: str, style: str = "-") -> None:
        """Draw a line of one pair of axes, with its points."""
        if series[0]:
            size, face = (4, color) if style == "-" else (7, "none")  # both are seen where lines coincide
            self.axes[at].plot(
                *series, style, label=label, color=color, marker="o", markersize=size, markerfacecolor=face
            )

    def finish(self, at: int, title: str, x: str, y: str, scale: str = "log") -> None:
        """Label a pair of axes."""
        axes = self.axes[at]
        axes.set(xscale=scale, yscale=scale, title=title, xlabel=x, ylabel=y)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda x, _: f"{x / 1e6:g} M" if x >= 1e6 else f"{x:,.12g}")
        axes.tick_params(labelsize=8)
        axes.grid(visible=True, which="major", color="#dddddd")
        axes.spines[["top", "right"]].set_visible(False)
        if axes.lines:
            axes.legend(frameon=False, fontsize=9)

    def save(self, file: Path) -> None:
        """Write the picture."""
        self.figure.savefig(file, dpi=100)


def _size(points: list[dict[str, Any]], file: Path) -> None:
    sheet = _Sheet(2)
    points = [point | {"x": point["x"] / 1e6} for point in points]
    for figure, what, style in (("again", "write", "-"), ("open", "open, read one", "--")):
        for way, name in ((_MORI, "mori"), (_PICKLE, "pickle")):
            sheet.line(0, _series(points, way, figure, 1e-3, 0), f"{name}: {what}", _COLORS[way], style)
    sheet.line(0, _series(points, _MORI, "unit", 1e-3, 0), "memcpy", _GREY, ":")
    sheet.finish(0, "Time", "size of the array, MB", "ms")
    for figure, what, style in (("peak", "at most while writing", "-"), ("anon opened", "in a reader", "--")):
        for way, name in ((_MORI, "mori"), (_PICKLE, "pickle")):
            sheet.line(1, _series(points, way, figure, 1e6, 0.004), f"{name}: {what}", _COLORS[way], style)
    sheet.finish(1, "Private memory (4 kB stands for none)", "size of the array, MB", "MB")
    sheet.save(file)


def _elements(results: Results, file: Path) -> None:
    sheet = _Sheet(2)
    for at, (kind, title) in enumerate((("strings", "A list of str"), ("dict", "A dict of str to int"))):
        points = results.scaling.get(kind, [])
        for figure, what, style in (("again", "write", "-"), ("open", "open, read ten", "--")):
            for way, name in ((_MORI, "mori"), (_PICKLE, "pickle")):
                sheet.line(at, _series(points, way, figure, 1e-3, 0), f"{name}: {what}", _COLORS[way], style)
        sheet.finish(at, title, "elements", "ms")
    sheet.save(file)


def _readers(points: list[dict[str, Any]], file: Path) -> None:
    sheet = _Sheet(2)
    for way, name in ((_MORI, "mori"), (_PICKLE, "pickle")):
        sheet.line(0, _series(points, way, "pss of all", 1e6, 0), name, _COLORS[way])
        sheet.line(1, _series(points, way, "open by many", 1e-3, 0), name, _COLORS[way])
    sheet.finish(0, "Memory of all readers together (PSS)", "readers of one array", "MB", "linear")
    sheet.axes[0].set_ylim(bottom=0)
    sheet.finish(1, "Time for one of them to open it", "readers of one array", "ms")
    for axes in sheet.axes:
        ticks = sorted({point["x"] for point in points})
        axes.set_xticks(ticks, labels=[str(tick) for tick in ticks])
        axes.minorticks_off()
    sheet.save(file)


def draw(results: Results, folder: Path) -> None:
    """Write size.png, elements.png and readers.png into the folder plots."""
    plots = folder / "plots"
    plots.mkdir(exist_ok=True)
    _size(results.scaling["size"], plots / "size.png")
    _elements(results, plots / "elements.png")
    _readers(results.scaling["readers"], plots / "readers.png")


if __name__ == "__main__":
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    draw(Results.load(file), file.parent)
