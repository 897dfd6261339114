"""A fuzzer of what reads bytes: regions and references, damaged blindly and with knowledge of the format.

Regions are read from a buffer, as copies that landed in sealed memory (``landed``), as files of the `files`
store (``files``), and as files that `mori.load` opens with and without pickles (``saved``); those of R's from
a buffer, too (``r``).

`python -m tests.fuzz 1000000` reads that many inputs in children, under limits of memory and time, so that
a crash, a hang or a blow-up is a finding and not the end. Inputs are numbered: `--again KIND NUMBER` reads
one once more. Where atheris is installed, a share of them is led by the coverage of mori's code.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import importlib.util
import json
import mmap
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

__all__ = ["FAULTS", "Finding", "fuzz"]

KINDS = {
    "plain": 0.2,
    "forged": 0.2,
    "reference": 0.1,
    "guided": 0.05,
    "landed": 0.15,
    "files": 0.1,
    "saved": 0.1,
    "r": 0.1,
}
FAULTS = ("none", "error", "crash", "hang", "memory")
_READS = re.compile(r"/mori/(codecs|format)/")  # where bytes become objects
_CHUNK = 25_000  # inputs in one child
_HANG = 60  # seconds for one input, on a machine that may be busy
_MEMORY = 256 << 20  # bytes of addresses beyond those of a child that has met everything once
_STARTING = b"\xff" * 8  # in place of an input's number
_SLACK = 2 << 20  # bytes that repr and pandas take, whatever the region


class Finding(NamedTuple):
    """What a reader of damaged bytes may not do."""

    kind: str
    number: int
    fault: str


# what one input is


def _regions() -> list[tuple[str, bytes, Callable[[Any], object]]]:
    """Return name, bytes and the check of each region: the golden files, and what the tests damage."""
    from tests.mori import test_corruption as made
    from tests.mori import test_golden as golden

    found: list[tuple[str, bytes, Callable[[Any], object]]] = []
    for path in sorted(golden.make.DIRECTORY.glob("*.mori")):
        needed = golden.make.NEEDS.get(path.stem)
        if needed is None or importlib.util.find_spec(needed):
            expected = golden.make.OBJECTS[path.stem]()
            found.append((path.stem, path.read_bytes(), lambda got, e=expected: golden.check(got, e)))
    for name, expected in made.OBJECTS.items():
        found.append((name, made.REGIONS[name], lambda got, e=expected: _is_same(got, e)))
    return found


def _is_same(got: Any, expected: Any) -> None:
    from tests.mori.test_corruption import same

    assert same(got, expected), "it is another object"


class _Reading:
    """Reads damaged regions, and says what is wrong with how that went."""

    def __init__(self, kind: str) -> None:
        from tests.mori.test_corruption import open_bytes, use

        self._kind = kind
        self._regions = _regions()
        for _, data, _ in self._regions:  # what is imported and cached at the first use is no matter
            use(open_bytes(data), 1 << 20)

    def __call__(self, choose: Callable[[int], int]) -> None:
        from tests.mori.damage import forge, mutate
        from tests.mori.test_corruption import attempt

        _, data, check = self._regions[choose(len(self._regions))]
        kind = self._kind if self._kind != "guided" else ("plain", "forged")[choose(2)]
        damaged = (mutate if kind == "plain" else forge)(data, choose)
        if not tracemalloc.is_tracing():
            attempt(damaged, check if kind == "plain" else None)
            return
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        if attempt(damaged, check if kind == "plain" else None):
            taken = tracemalloc.get_traced_memory()[1] - before
            assert taken <= len(damaged) + _SLACK, f"{taken} bytes for a region of {len(damaged)}"


class _OfR:
    """Reads damaged regions of R's: those that R wrote, and what mori writes for R."""

    def __init__(self) -> None:
        from tests.mori.test_corruption import use
        from tests.mori.test_r_damage import open_r, regions

        self._regions = regions()
        for data in self._regions:
            use(open_r(data), 1 << 20)

    def __call__(self, choose: Callable[[int], int]) -> None:
        from tests.mori.test_corruption import attempt
        from tests.mori.test_r_damage import damage_r, open_r

        damaged = damage_r(self._regions[choose(len(self._regions))], choose)
        if not tracemalloc.is_tracing():
            attempt(damaged, opened=open_r)
            return
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        attempt(damaged, opened=open_r)
        taken = tracemalloc.get_traced_memory()[1] - before
        assert taken <= len(damaged) + _SLACK, f"{taken} bytes for a region of {len(damaged)}"


class _Stored(_Reading):
    """Reads damaged regions in a store: landed in sealed memory, in its files, or in those of a user."""

    def __call__(self, choose: Callable[[int], int]) -> None:
        from tests.mori.damage import forge, mutate, scatter
        from tests.mori.test_corruption import attempt

        if self._kind == "saved" and choose(4) == 0:
            attempt(bytearray(_plain_stream(choose)), None, _loaded)
            return
        _, data, check = self._regions[choose(len(self._regions))]
        damage = (scatter, scatter, forge, mutate)[choose(4)]
        damaged = damage(data, choose)
        if self._kind == "saved":
            opened = partial(_opened_saved, choose)
        else:
            opened = _opened_landed if self._kind == "landed" else partial(_opened_file, choose(8) > 0)
        try:
            attempt(damaged, check if damage is mutate else None, opened)
        except Exception as error:
            if damage is mutate or not _is_of_values(error):
                raise


def _is_of_values(error: Exception) -> bool:
    """Say whether a library, no codec, raised it for values in use, such as dates that are out of range."""
    frames = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    names = [code.co_name for code in frames]
    if "use" not in names:
        return False
    below = frames[len(names) - names[::-1].index("use") :]
    return bool(below) and not any(map(_READS.search, (code.co_filename for code in below)))


def _renamed(data: bytes, **fields: int) -> bytes:
    """Return a region with another id, and other fields of the header, if its header can be read."""
    from mori.store import base

    header = base.unpack_header(data)
    if isinstance(header, str):
        return data
    header = header._replace(region_id=os.urandom(16), **fields)
    return base.pack_header(header) + data[base.HEADER.size :]


def _opened_landed(data: bytes) -> Any:
    """Open a region that has come as bytes, as a worker of Dask and a node of Ray do."""
    from mori.format.node import open_node, root_of
    from mori.memory import mapping as mappings
    from mori.memory import region

    return open_node(root_of(region.adopt(mappings.map_bytes(_renamed(data)))))


def _opened_file(is_named: bool, data: bytes) -> Any:
    """Open a file of the store by its name; its header says its name and its size if `is_named`."""
    from mori import store
    from mori.format.node import open_node, root_of
    from mori.memory import region
    from mori.store.base import Where

    home = store.current()
    draft = home.create(next(region._numbers), os.urandom(16))
    assert draft is not None
    if is_named:
        data = _renamed(data, pid=draft.pid, number=draft.number, nbytes=len(data), segment_nbytes=0)
    os.pwrite(draft.held.fds[0], data, 0)
    held = home.publish(draft)
    assert held is not None
    try:
        mapping = region.find(Where(draft.pid, draft.number), store.FILES)
    finally:
        home.release(held)
        with contextlib.suppress(OSError):
            os.unlink(held.path or "")  # the store removes nothing that does not prove to be a region
    assert mapping is not None
    return open_node(root_of(mapping))


def _plain_stream(choose: Callable[[int], int]) -> bytes:
    """Return a region with a stream that is changed at will, and names all that plain data may name."""
    import zlib

    from mori.format import writer
    from mori.format.layout import Id, to_json
    from mori.format.plain import PLAIN
    from mori.format.plan import PlanNode
    from tests.mori.test_saving import PLAIN_OBJECTS

    stream = _damage(PLAIN_OBJECTS[choose(len(PLAIN_OBJECTS))], choose)
    names = sorted(name for name in PLAIN if not name[0].startswith("numpy.core."))
    meta = to_json(["object", zlib.crc32(stream), 4, names])
    node = PlanNode(Id.PICKLE, meta, [np.frombuffer(stream, np.uint8)])
    node.close()
    return bytes(writer.to_bytes(node, writer.header_of(node, os.urandom(16), 1, 1)))


def _opened_saved(choose: Callable[[int], int], data: bytes) -> Any:
    """Open a file by `mori.load`, with and without pickles; half of them have a trailer."""
    from mori.memory import checksums

    allow_pickle = choose(2) == 0
    if choose(8):
        data = _renamed(data, nbytes=len(data), segment_nbytes=0)
    if choose(2):
        pickle = checksums.Pickle(choose(2) * choose(len(data) + 64), "obj")
        trailer, room = checksums.pack_trailer(b"", pickle), checksums.trailer_nbytes(len(data))
        data += (trailer if choose(4) else _damage(trailer, choose))[:room].ljust(room, b"\0")
    return _loaded(data, allow_pickle=allow_pickle, verify=choose(16) == 0)


def _loaded(data: bytes, *, allow_pickle: bool = False, verify: bool = False) -> Any:
    import mori

    path = os.path.join(tempfile.gettempdir(), f"saved-{os.getpid()}")
    with open(path, "wb") as file:
        file.write(data)
    try:
        return mori.load(path, allow_pickle=allow_pickle, verify=verify)
    finally:
        os.unlink(path)


class _Referring:
    """Reads damaged references, and bytes that came by value under a damaged header."""

    def __init__(self) -> None:
        import mori
        from mori.wire import reference, transport
        from tests.mori.test_corruption import OBJECTS

        self._kept = [mori.share(obj) for obj in OBJECTS.values()]
        array, frame = mori.share(OBJECTS["float64"]), mori.share(OBJECTS["frame"])
        self._kept += [array, array[2:7:2], array[::-1], array.view("<i4"), frame, frame["s"].array[2:5]]
        self._payloads = []
        for obj in self._kept:
            with transport.use_transport("reference"):
                reduced = obj.__reduce_ex__(5)
            if reduced[0] is reference.load:
                self._payloads.append(bytes(reduced[1][0]))
        self._regions = _regions()

    def __call__(self, choose: Callable[[int], int]) -> None:
        from mori import MoriError
        from mori.wire import reference
        from tests.mori.test_damaged_references import stays_inside

        with contextlib.suppress(MoriError):
            if choose(4) == 0:
                _, data, _ = self._regions[choose(len(self._regions))]
                head = _damage(data[:64], choose)
                stays_inside(reference.receive(data, head))
                return
            payload = _damage(self._payloads[choose(len(self._payloads))], choose)
            stays_inside(reference.load(payload))


def _damage(data: bytes, choose: Callable[[int], int]) -> bytes:
    damaged = bytearray(data)
    for _ in range(1 + choose(3)):
        place = choose(len(damaged))
        if 1 <= place < 17 and choose(8):  # of a reference, the id: another one is another region
            place = choose(len(damaged))
        damaged[place] = (0, 1, 0x7F, 0x80, 0xFF, choose(256))[choose(6)]
    if choose(10) == 0:
        del damaged[choose(len(damaged)) :]
    if choose(20) == 0:
        damaged += bytes(choose(256) for _ in range(choose(40)))
    return bytes(damaged)


def _break(choose: Callable[[int], int]) -> None:
    """Stand for a reader that has every fault there is: what the fuzzer itself is tested by."""
    fault = FAULTS[choose(len(FAULTS))]
    if fault == "error":
        raise KeyError("no error of mori's")
    if fault == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    while fault == "hang":
        time.sleep(0.1)
    if fault == "memory":
        bytes(1 << 40)


def _reader(kind: str) -> Callable[[Callable[[int], int]], None]:
    np.set_printoptions(threshold=20)  # numbers take long to print
    if kind == "broken":
        return _break
    if kind == "r":
        return _OfR()
    if kind in ("landed", "files", "saved"):
        if kind == "files" and not os.environ.get("MORI_STORE", "").startswith("files:"):
            os.environ["MORI_STORE"] = f"files:{tempfile.mkdtemp()}"
        return _Stored(kind)
    return _Referring() if kind == "reference" else _Reading(kind)


# a child: reads a range of inputs, and notes in a file how far it is


def _read_range(kind: str, first: int, last: int, progress: str) -> None:
    faulthandler.enable()
    read = _reader(kind)
    with open("/proc/self/statm", encoding="ascii") as statm:
        most = int(statm.read().split()[0]) * resource.getpagesize() + _MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    tracemalloc.start()
    with open(progress, "r+b") as file, mmap.mmap(file.fileno(), 8) as note:
        for number in range(first, last):
            note[:] = number.to_bytes(8, "little")
            if number == first + (last - first) // 10:  # to trace is slow; the limit of addresses stays
                tracemalloc.stop()
            try:
                read(random.Random(number).randrange)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # a panic of Rust's is no Exception
                sys.stdout.write(json.dumps([number, _described(error)]) + "\n")
        note[:] = last.to_bytes(8, "little")


def _described(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" ({trace.tb_frame.f_code.co_filename}:{trace.tb_lineno})" if trace else ""
    return f"{type(error).__name__}: {str(error)[:200]}{where}"


def _read_guided(count: int, seed: int, directory: str) -> None:
    """Let libFuzzer choose, by which lines of mori each input reaches."""
    import atheris

    with atheris.instrument_imports(include=["mori"]):
        import mori  # noqa: F401

        read = _reader("guided")
    options = [
        *(f"-runs={count}", f"-seed={seed}", f"-timeout={_HANG}", f"-artifact_prefix={directory}/"),
        *("-rss_limit_mb=2048", "-malloc_limit_mb=256", "-max_len=256", "-len_control=0", "-verbosity=0"),
    ]
    atheris.Setup([sys.argv[0], *options], lambda data: read(_from_bytes(data)))
    atheris.Fuzz()


def _from_bytes(data: bytes) -> Callable[[int], int]:
    """Return choices that are read from bytes; when those have ended, numbers that follow from them."""
    place = 0
    rest = random.Random(data)

    def choose(n: int) -> int:
        nonlocal place
        width = 1 if n <= 256 else 4
        piece = data[place : place + width]
        place += width
        return int.from_bytes(piece, "little") % n if len(piece) == width else rest.randrange(n)

    return choose


# the parent


class _Child:
    """One range of inputs, read by a process that may die of it."""

    def __init__(self, kind: str, first: int, last: int, scratch: str, hang: float) -> None:
        self.kind, self.first, self.last = kind, first, last
        self.started = self._moved = time.monotonic()
        self._seen, self._hang, self._hung = b"", hang, False
        self._progress = os.path.join(scratch, f"{kind}-{first}")
        self.guided = kind == "guided"
        self.directory = tempfile.mkdtemp(dir=scratch)
        Path(self._progress).write_bytes(_STARTING)
        store = {"MORI_STORE": f"files:{tempfile.mkdtemp(dir=scratch)}"} if kind == "files" else {}
        arguments = [kind, str(first), str(last), self.directory if self.guided else self._progress]
        self._said = open(self._progress + ".out", "w+b")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz", "--child", *arguments],
            stdout=self._said,
            stderr=subprocess.STDOUT,
            env=os.environ | store,
            cwd=Path(__file__).parents[1],
        )

    def at(self) -> int:
        said = Path(self._progress).read_bytes()
        return self.first if said == _STARTING else int.from_bytes(said, "little")

    def ended(self) -> bool:
        """Say whether it has ended; one that stays with an input for too long is ended here."""
        if self._process.poll() is not None:
            return True
        if (seen := Path(self._progress).read_bytes()) != self._seen:
            self._seen, self._moved = seen, time.monotonic()
        # What is imported before the first is no input; and a guided one has a limit of its own for each.
        elif seen != _STARTING and time.monotonic() - self._moved > self._hang:
            self._hung = True
            self._process.send_signal(signal.SIGABRT)  # for the traceback
            self._process.wait()
            return True
        return False

    def findings(self) -> Iterator[Finding]:
        self._said.seek(0)
        said = self._said.read().decode(errors="replace")
        self._said.close()
        for line in said.splitlines():
            with contextlib.suppress(ValueError, TypeError):
                number, fault = json.loads(line)
                yield Finding(self.kind, number, fault)
        code = self._process.returncode
        if not code:
            return
        artifacts = [path.read_bytes().hex() for path in Path(self.directory).iterdir()]
        what = "it hung" if self._hung else f"exit {code}"
        yield Finding(self.kind, self.at(), f"{what} at {self.at()} {' '.join(artifacts)}\n{said[-3000:]}")

    def rest(self) -> tuple[int, int] | None:
        """Return what is left to read after a death."""
        if not self._process.returncode:
            return None
        done = self.at() + 1 if not self.guided else self.last
        return (done, self.last) if done < self.last else None


def fuzz(
    count: int,
    seed: int,
    say: Callable[[str], object],
    *,
    kinds: Sequence[str] = tuple(KINDS),
    hang: float = _HANG,
) -> list[Finding]:
    """Read so many inputs and return what was found, each fault once for its place."""
    shares = {kind: KINDS.get(kind, 1) for kind in kinds}
    if "guided" in shares and importlib.util.find_spec("atheris") is None:
        shares.pop("guided")
        say("atheris is not installed: no input is led by coverage")
    pending: list[tuple[str, int, int]] = []
    for kind, share in shares.items():
        wanted = round(count * share / sum(shares.values()))
        pending += [
            (kind, seed + first, seed + min(first + _CHUNK, wanted)) for first in range(0, wanted, _CHUNK)
        ]
    pending.sort(key=lambda chunk: chunk[1])  # some of each kind, whenever it is ended
    found: dict[str, Finding] = {}
    times: Counter[str] = Counter()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        running: list[_Child] = []
        while pending or running:
            while pending and len(running) < (os.cpu_count() or 1):
                running.append(_Child(*pending.pop(0), scratch, hang))
            time.sleep(0.05)
            for child in [child for child in running if child.ended()]:
                running.remove(child)
                times[child.kind] += child.last - child.first
                for finding in child.findings():
                    fault = finding.fault.splitlines()[0]
                    if found.setdefault(fault, finding) is finding:
                        say(f"{finding.kind} {finding.number}: {finding.fault}")
                if (rest := child.rest()) is not None:
                    times[child.kind] -= rest[1] - rest[0]
                    pending.append((child.kind, *rest))
                seconds = time.monotonic() - started
                say(f"{seconds:7.0f} s  {dict(times)}  {len(found)} findings")
    return list(found.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=1_000_000, help="how many inputs")
    parser.add_argument("--seed", type=int, default=1, help="the number of the first")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=tuple(KINDS), help="of what kinds")
    parser.add_argument("--again", nargs=2, metavar=("KIND", "NUMBER"), help="read one input, with traceback")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        kind, first, last, where = given.child
        if kind == "guided":
            _read_guided(int(last) - int(first), int(first), where)
        else:
            _read_range(kind, int(first), int(last), where)
    elif given.again:
        kind, number = given.again
        tracemalloc.start()
        is_guided = kind == "guided"
        _reader(kind)(
            _from_bytes(bytes.fromhex(number)) if is_guided else random.Random(int(number)).randrange
        )
    else:

        def say(line: str) -> None:
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()

        found = fuzz(given.count, given.seed, say, kinds=given.kinds)
        sys.exit(f"{len(found)} findings" if found else 0)


if __name__ == "__main__":
    main()
