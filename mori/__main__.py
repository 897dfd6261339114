"""The command line: `mori ls`, `mori inspect NAME`, `mori verify PATH`, `mori prune`, `mori doctor`.

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
from mori.api import locate, map_shared, node_of, prune_shared, regions
from mori.errors import MoriError, PickleNotAllowedError, readable_size
from mori.files import verify
from mori.format import layout
from mori.format.node import Node
from mori.format.r import RNode
from mori.store.base import VERSION, Name, format_name, parse_name
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
    except (MoriError, OSError) as error:
        sys.stderr.write(f"mori: {_printable(str(error))}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    from mori import __version__

    parser = argparse.ArgumentParser(prog="mori", description="Look after shared regions.")
    parser.add_argument("--version", action="version", version=f"mori {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    for name, run, text in (
        ("ls", _ls, "list the regions that are alive"),
        ("inspect", _inspect, "show what a region holds"),
        ("verify", _verify, "compare files of mori.save with their checksums"),
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
        if name == "verify":
            command.add_argument("paths", nargs="+", metavar="path", help="a file")
        if name == "inspect":
            command.add_argument(
                "name", help="a file, or what mori.shared_name() gives: /mori_4d1b_1 or /mori_4d1b_1[2,0]"
            )
            command.add_argument("--depth", type=int, default=3, help="levels to show (3)")
            command.add_argument("--parts", type=int, default=10, help="parts to show of each (10)")
    return parser


def _ls(options: argparse.Namespace) -> int:
    found = [*regions(), *store.of_kind(store.PATH).entries()]
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
    sys.stdout.write(
        f"{len(found)} regions, {readable_size(total)}, in the {store.current().name} store and in files\n"
    )
    return 0


def _places_of(holders: Sequence[int], places: Mapping[int, list[str]]) -> list[str]:
    return sorted({place for pid in holders for place in places[pid]})


def _inspect(options: argparse.Namespace) -> int:
    if parse_name(options.name) is None and os.path.exists(options.name):
        options.name = format_name(Name(0, 0, (), os.path.realpath(options.name)))
    found = locate(options.name)
    if found is None:
        sys.stderr.write(
            f"mori: {options.name!r} is no name of a region, and no file; names look like /mori_4d1b_1[2,0]\n"
        )
        return 2
    name, node, rest = found
    mapping = node.mapping
    try:
        obj = map_shared(options.name)
    except PickleNotAllowedError as error:  # a file's: to look at it runs no code of its
        obj = error
    assert mapping.lease is not None
    home = mapping.lease.home.name
    codec = _codec_of(node)
    parts = [*_rows(obj, name, "", options.depth, options.parts, int(mapping.is_r))]
    if options.json:
        shown = {
            "name": options.name,
            "node": format_name(name._replace(path=name.path[: -len(rest)]) if rest else name),
            "codec": codec,
            "store": home,
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
    sys.stdout.write(f"{_printable(options.name)}: {'in a ' if rest else ''}{codec}, {sizes} in {home}\n")
    rows = [
        (
            part["name"],
            part["step"],
            part["kind"],
            "" if part["nbytes"] is None else readable_size(part["nbytes"]),
            "" if part["offset"] is None else str(part["offset"]),
        )
        for part in parts
    ]
    _print_table(("NAME", "PART", "KIND", "SIZE", "OFFSET"), rows)
    return 0


def _verify(options: argparse.Namespace) -> int:
    whole: dict[str, int | None] = {}
    for path in options.paths:
        try:
            whole[path] = verify(path)
        except (MoriError, OSError) as error:
            whole[path] = None
            sys.stderr.write(f"mori: {_printable(str(error))}\n")
    if options.json:
        _print_json(whole)
    else:
        sys.stdout.writelines(
            f"{_printable(path)}: {readable_size(nbytes)}, as it was saved\n"
            for path, nbytes in whole.items()
            if nbytes is not None
        )
    return int(None in whole.values())


def _codec_of(node: Node) -> str:
    if isinstance(node, RNode):
        return node.description
    return _CODECS.get(node.record.codec, str(node.record.codec))


def _allowed(parts: Iterator[tuple[int, str, Any]]) -> Iterator[tuple[int, str, Any]]:
    """Yield parts up to the first that is a pickle which may not be read: that as its error."""
    number = -1
    try:
        for number, step, part in parts:
            yield number, step, part
    except PickleNotAllowedError as error:
        yield number + 1, "[...]", error


def _rows(obj: Any, name: Name, step: str, depth: int, most: int, first: int) -> Iterator[dict[str, Any]]:
    """Yield an object and its parts, by the names that `inspect` takes: a bounded number of each.

    Parts are counted from `first`: names of R's regions count from 1.
    """
    found = locate(text := format_name(name))
    node = found[1] if found is not None and not found[2] else None
    nbytes = getattr(obj, "nbytes", None) if node is None else node.extent
    node = node_of(obj) if node is None else node  # what is small holds parts that have no names as nodes
    offset = None if node is None else node.offset
    is_refused = isinstance(obj, PickleNotAllowedError)
    kind = f"pickle of {obj.cls}" if is_refused else kind_of(obj)
    yield {"name": text, "step": step, "kind": kind, "nbytes": nbytes, "offset": offset}
    if depth > 0 and not is_refused:
        for number, inner, part in islice(_allowed(parts_of(obj)), most):
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


def _printable(text: str) -> str:
    """Return text that does nothing to a terminal: a file may have any name."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    rows = [tuple(map(_printable, row)) for row in rows]
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
