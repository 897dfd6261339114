"""Each test of R's suite has its number above a test of ours, or a line in docs/r.md."""

import re
from pathlib import Path

HERE = Path(__file__).parent
DOC = HERE.parents[2] / "docs" / "r.md"
COUNT = 142


def numbers(text: str) -> set[int]:
    return {int(number) for number in re.findall(r"\d+", text)}


def ported() -> set[int]:
    """Return the numbers that stand above a test."""
    found: set[int] = set()
    for path in HERE.parent.rglob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        marks = re.findall(r"^# R: ([\d, ]+)$", text, re.MULTILINE)
        above_a_test = re.findall(r"^# R: ([\d, ]+)\n(?:@pytest|def test_)", text, re.MULTILINE)
        assert marks == above_a_test
        found.update(*map(numbers, marks))
    return found


def decided() -> set[int]:
    """Return the numbers that have a line in the document's table."""
    lines = re.findall(r"^\| ([\d, ]+) \|", DOC.read_text(encoding="utf-8"), re.MULTILINE)
    return set().union(*map(numbers, lines))


def test_every_number_of_rs_suite_has_a_test_or_a_line() -> None:
    assert ported() | decided() == {*range(1, COUNT + 1)}


def test_what_has_no_test_is_what_python_has_no_counterpart_for() -> None:
    assert {*range(1, COUNT + 1)} - ported() == {96, 97, 98, 99}
