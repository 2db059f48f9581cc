"""Tables fit the terminal, and are plain where they must be."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpmem_driver.cli import tables

COLUMNS = (
    tables.Column("NAME"),
    tables.Column("SIZE", is_number=True),
    tables.Column("STATE"),
    tables.Column("REASON", takes_rest=True),
)
PLAIN = tables.Screen(None, coloured=False)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_table():
    rows = [("ns0", "4.00 GiB", "clean", ""), ("a longer name", "252.00 MiB", tables.Cell("dirty", "yellow"), "in use")]
    assert tables.render(COLUMNS, rows, PLAIN).splitlines() == [
        "NAME                 SIZE  STATE  REASON",
        "ns0              4.00 GiB  clean",
        "a longer name  252.00 MiB  dirty  in use",
    ]


def test_a_column_that_is_empty_everywhere_is_left_out():
    assert "REASON" not in tables.render(COLUMNS, [("ns0", "1", "clean", "")], PLAIN)
    assert tables.render(COLUMNS, [], PLAIN) == "NAME  SIZE  STATE  REASON\n"


TEXT = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Zs")), max_size=80)
DIGITS = st.integers(0, 1 << 40).map(str)


@settings(deadline=None)
@given(st.lists(st.tuples(TEXT, DIGITS, TEXT, TEXT), min_size=1, max_size=5), st.sampled_from([80, 100, 200]))
def test_no_line_is_longer_than_the_terminal(rows, width):
    lines = tables.render(COLUMNS, rows, tables.Screen(width, coloured=False)).splitlines()
    assert len(lines) == len(rows) + 1
    assert all(tables.width_of(line) <= width for line in lines)


def test_what_is_cut_first():
    rows = [("n" * 30, "1234567", tables.Cell("quarantined", "red"), "r" * 60)]
    columns = (*COLUMNS[:2], tables.Column("STATE", is_cut_last=True), COLUMNS[3])

    def line(width):
        return tables.render(columns, rows, tables.Screen(width, coloured=False)).splitlines()[1]

    assert line(200) == f"{'n' * 30}  1234567  quarantined  {'r' * 60}"
    assert line(90) == f"{'n' * 30}  1234567  quarantined  {'r' * 34}.."
    assert line(78) == f"{'n' * 30}  1234567  quarantined  {'r' * 22}.."
    assert line(60) == f"{'n' * 10}..  1234567  quarantined  {'r' * 22}.."
    assert line(45) == "nnnnnn..  1234567  quarantined  rrrrrrrrrrr.."
    assert line(37) == "nnnnnn..  1234567  quaran..  rrrrrr.."
    assert line(10) == line(37), "numbers are never cut"


def test_characters_that_take_two_columns():
    assert tables.width_of("内存0") == 5
    assert tables.cut("内存内存", 7) == "内存.."
    rows = [("内存", "1", "x", ""), ("ns00", "1", "x", "")]
    first, second = tables.render(COLUMNS, rows, PLAIN).splitlines()[1:]
    assert tables.width_of(first) == tables.width_of(second)


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),  # as https://no-color.org says: present and not an empty string
        ({"TERM": "dumb"}, False),
        ({}, False),
    ],
)
def test_colours_are_for_terminals_that_want_them(monkeypatch, environment, coloured):
    for name in ("NO_COLOR", "TERM", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (environment | {"COLUMNS": "93"}).items():
        monkeypatch.setenv(name, value)
    assert tables.Screen.of(Terminal()) == tables.Screen(93, coloured)
    assert tables.Screen.of(io.StringIO()) == PLAIN


def test_colours_take_no_room():
    rows = [("ns0", "1", tables.Cell("dirty", "yellow"), "r")]
    painted = tables.render(COLUMNS, rows, tables.Screen(100, coloured=True))
    assert "\x1b[33mdirty\x1b[0m" in painted
    for code in ("\x1b[33m", "\x1b[1m", "\x1b[0m"):
        painted = painted.replace(code, "")
    assert painted == tables.render(COLUMNS, rows, tables.Screen(100, coloured=False))


def test_one_thing_is_a_line_for_each_value():
    pairs = [("name", "ns0"), ("NUMA node", ""), ("state", tables.Cell("clean", "green"))]
    assert tables.fields(pairs, PLAIN) == "name   ns0\nstate  clean\n"
