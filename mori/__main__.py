"""The command line: `mori ls`, `mori inspect NAME`, `mori prune`, `mori doctor`.

Each prints a plain table, or JSON with ``--json``. Exit codes: 0, 1 for what was not found or does not work,
2 for a wrong command line.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from mori import store
from mori.api import locate, map_shared, prune_shared, regions
from mori.errors import MoriError, readable_size
from mori.format import layout
from mori.format.node import Node
from mori.format.r import RNode
from mori.store.base import VERSION, Name, format_name
from mori.store.processes import process_labels
from mori.tools.explain import kind_of, parts_of

__all__ = ["main"]

_CODECS: Final = {
    number: name for name, number in vars(layout.Id).items() if name.isupper() and isinstance(number, int)
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    options = _parser().parse_args(arguments)
    warnings.formatwarning = lambda message, *_, **__: f"mori: {message}\n"
    try:
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `mori ls | head` has read enough; what is left goes nowhere at the exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MoriError as error:
        sys.stderr.write(f"mori: {error}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    from mori import __version__

    parser = argparse.ArgumentParser(prog="mori", description="Look after shared regions.")
    parser.add_argument("--version", action="version", version=f"mori {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    for name, run, text in (
        ("ls", _ls, "list the regions that are alive"),
        ("inspect", _inspect, "show what a region holds"),
        ("prune", _prune, "remove what killed processes left behind"),
        ("doctor", _doctor, "look whether shared memory works here, and how well"),
    ):
        command = commands.add_parser(name, help=text, description=text.capitalize() + ".")
        command.add_argument("--json", action="store_true", help="print JSON")
        command.set_defaults(run=run)
        if name == "doctor":
            command.add_argument(
                "--engines", action="store_true", help="try Dask and Ray, too, where they are installed"
            )
        if name == "inspect":
            command.add_argument(
                "name", help="as mori.shared_name() gives it: /mori_4d1b_1 or /mori_4d1b_1[2,0]"
            )
            command.add_argument("--depth", type=int, default=3, help="levels to show (3)")
            command.add_argument("--parts", type=int, default=10, help="parts to show of each (10)")
    return parser


def _ls(options: argparse.Namespace) -> int:
    found = regions()
    places = {pid: process_labels(pid) for pid in {pid for entry in found for pid in entry.holders}}
    if options.json:
        _print_json(
            [
                {
                    **entry._asdict(),
                    "region_id": entry.region_id.hex(),
                    "places": _places_of(entry.holders, places),
                }
                for entry in found
            ]
        )
        return 0
    rows = [
        (
            entry.name,
            readable_size(entry.nbytes),
            _age(entry.age),
            str(entry.owner),
            " ".join(map(str, entry.holders)) or "?",
            " ".join(_places_of(entry.holders, places)),
        )
        for entry in found
    ]
    head = ("NAME", "SIZE", "AGE", "CREATOR", "HELD BY", "AT")
    _print_table(head if any(places.values()) else head[:-1], rows)
    total = sum(entry.nbytes for entry in found)
    sys.stdout.write(f"{len(found)} regions, {readable_size(total)}, in the {store.current().name} store\n")
    return 0


def _places_of(holders: Sequence[int], places: Mapping[int, list[str]]) -> list[str]:
    return sorted({place for pid in holders for place in places[pid]})


def _inspect(options: argparse.Namespace) -> int:
    found = locate(options.name)
    if found is None:
        sys.stderr.write(
            f"mori: {options.name!r} is no name of a region; names look like /mori_4d1b_1[2,0]\n"
        )
        return 2
    name, node, rest = found
    obj, mapping = map_shared(options.name), node.mapping
    assert mapping.lease is not None
    home = mapping.lease.home
    codec = _codec_of(node)
    parts = [*_rows(obj, name, "", options.depth, options.parts, int(mapping.is_r))]
    if options.json:
        shown = {
            "name": options.name,
            "node": format_name(name._replace(path=name.path[: -len(rest)]) if rest else name),
            "codec": codec,
            "store": home.name,
            "nbytes": node.extent,
            "region": {
                "name": format_name(mapping.name),
                "nbytes": mapping.nbytes,
                "id": mapping.header.region_id.hex(),
                "format": "R" if mapping.is_r else VERSION,
            },
            "parts": parts,
        }
        _print_json(shown)
        return 0
    sizes = f"{readable_size(node.extent)} of {readable_size(mapping.nbytes)}"
    sys.stdout.write(f"{options.name}: {'in a ' if rest else ''}{codec}, {sizes} in {home.name}\n")
    rows = [
        (
            part["name"],
            part["step"],
            part["kind"],
            "" if part["nbytes"] is None else readable_size(part["nbytes"]),
        )
        for part in parts
    ]
    _print_table(("NAME", "PART", "KIND", "SIZE"), rows)
    return 0


def _codec_of(node: Node) -> str:
    if isinstance(node, RNode):
        return node.description
    return _CODECS.get(node.record.codec, str(node.record.codec))


def _rows(obj: Any, name: Name, step: str, depth: int, most: int, first: int) -> Iterator[dict[str, Any]]:
    """Yield an object and its parts, by the names that `inspect` takes: a bounded number of each.

    Parts are counted from `first`: names of R's regions count from 1.
    """
    found = locate(text := format_name(name))
    is_node = found is not None and not found[2]
    nbytes = found[1].extent if found is not None and is_node else getattr(obj, "nbytes", None)
    yield {"name": text, "step": step, "kind": kind_of(obj), "nbytes": nbytes}
    if depth > 0:
        for number, inner, part in islice(parts_of(obj), most):
            below = name._replace(path=(*name.path, number + first))
            yield from _rows(part, below, step + inner, depth - 1, most, first)


def _prune(options: argparse.Namespace) -> int:
    names = prune_shared()
    if options.json:
        _print_json(names)
    else:
        sys.stdout.writelines(f"{name}\n" for name in names)
        sys.stdout.write(f"{len(names)} regions removed from the {store.current().name} store\n")
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from mori.tools.doctor import examine  # which imports much

    checks = examine(engines=options.engines)
    if options.json:
        _print_json([check._asdict() for check in checks])
    else:
        for check in checks:
            sys.stdout.write(f"{check.verdict:<5} {check.what}: {check.found}\n")
            if check.remedy:
                sys.stdout.write(f"      do: {check.remedy}\n")
    return int(any(check.verdict == "fail" for check in checks))


def _print_json(value: Any) -> None:
    json.dump(value, sys.stdout, indent=2)
    sys.stdout.write("\n")


def _print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=False)]  # rows may have more
    for row in (head, *rows):
        line = "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False))
        sys.stdout.write(f"{line.rstrip()}\n")


def _age(seconds: float) -> str:
    for length, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


if __name__ == "__main__":
    sys.exit(main())
