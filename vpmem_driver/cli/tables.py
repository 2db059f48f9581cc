"""Tables for people: they fit the terminal, are plain ASCII except for the text in them, and have colours if possible.

Output that is not a terminal is neither cut nor coloured.
"""

import dataclasses
import os
import shutil
import typing
from collections.abc import Sequence

#: Columns are not made narrower than this to fit the terminal; one that takes the rest, first only to _LEAST_REST.
_LEAST_WIDTH = 8
_LEAST_REST = 24
_GAP = "  "
_CUT = ".."

#: SGR parameters (ECMA-48) of the 16 basic colours, which every terminal shows legibly on its own background.
_COLOURS = {"red": "31", "green": "32", "yellow": "33", "blue": "34", "magenta": "35", "cyan": "36", "bold": "1"}


@dataclasses.dataclass(frozen=True, slots=True)
class Screen:
    """Where a table is printed.

    :ivar width: columns; None if lines may have any length
    :ivar coloured: whether it shows colours
    """

    width: int | None
    coloured: bool

    @classmethod
    def of(cls, stream: typing.TextIO) -> "Screen":
        """Return what `stream` is: a terminal with its width (the variable COLUMNS takes precedence), or no terminal.

        A terminal shows colours, unless NO_COLOR is set (https://no-color.org) or TERM is dumb.
        """
        if not stream.isatty():
            return cls(None, coloured=False)
        coloured = not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"
        return cls(shutil.get_terminal_size().columns, coloured)

    def paint(self, text: str, colour: str | None) -> str:
        """Return `text` in a colour, if there is one and the screen shows it."""
        if colour is None or not self.coloured or not text:
            return text
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    :ivar is_number: align it to the right, and never cut it
    :ivar takes_rest: cut it before any other column is cut
    :ivar is_cut_last: cut it after all other columns
    """

    heading: str
    is_number: bool = False
    takes_rest: bool = False
    is_cut_last: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """A coloured text. Other cells of a table are plain strings."""

    text: str
    colour: str | None


Row = Sequence[str | Cell]


def render(columns: Sequence[Column], rows: Sequence[Row], screen: Screen) -> str:
    """Return the table, one line for each row. Columns that are empty in every row are left out, if there is a row."""
    texts = [[cell if isinstance(cell, str) else cell.text for cell in row] for row in rows]
    used = [index for index in range(len(columns)) if not texts or any(row[index] for row in texts)]
    widths = {index: max(map(width_of, [columns[index].heading, *(row[index] for row in texts)])) for index in used}
    _fit(columns, widths, screen.width)
    lines = [_line(columns, [column.heading for column in columns], widths, screen, colour="bold")]
    lines += [_line(columns, row, widths, screen) for row in rows]
    return "".join(f"{line}\n" for line in lines)


def _fit(columns: Sequence[Column], widths: dict[int, int], most: int | None) -> None:
    """Make columns narrower until the line has at most `most` characters, or none can be narrower."""
    if most is None:
        return
    rest = [index for index in widths if columns[index].takes_rest]
    last = [index for index in widths if columns[index].is_cut_last]
    usual = [index for index in widths if not columns[index].is_number and index not in {*rest, *last}]
    excess = sum(widths.values()) + len(_GAP) * (len(widths) - 1) - most
    for stage, least in ((rest, _LEAST_REST), (usual, _LEAST_WIDTH), (rest, _LEAST_WIDTH), (last, _LEAST_WIDTH)):
        while excess > 0 and (wide := [index for index in stage if widths[index] > least]):
            widths[max(wide, key=lambda index: widths[index])] -= 1
            excess -= 1


def _line(
    columns: Sequence[Column], row: Row, widths: dict[int, int], screen: Screen, *, colour: str | None = None
) -> str:
    parts = []
    for index, width in widths.items():
        cell = row[index]
        text, own = (cell, colour) if isinstance(cell, str) else (cell.text, cell.colour)
        shown = cut(text, width)
        blanks = " " * (width - width_of(shown))
        painted = screen.paint(shown, own)
        parts.append(blanks + painted if columns[index].is_number else painted + blanks)
    return _GAP.join(parts).rstrip()


def cut(text: str, width: int) -> str:
    """Return `text`, or as much of its beginning as fits into `width` columns with two full stops."""
    if width_of(text) <= width:
        return text
    while text and width_of(text) > width - len(_CUT):
        text = text[:-1]
    return text + _CUT


def width_of(text: str) -> int:
    """Return how many columns of a terminal a printable text takes."""
    if text.isascii():
        return len(text)
    import wcwidth  # noqa: PLC0415  slow to import, and rarely needed

    return max(0, int(wcwidth.wcswidth(text)))


def fields(pairs: Sequence[tuple[str, str | Cell]], screen: Screen) -> str:
    """Return one thing as a line for each pair of name and value; pairs without a value are left out."""
    shown = [(name, cell if isinstance(cell, Cell) else Cell(cell, None)) for name, cell in pairs]
    shown = [(name, cell) for name, cell in shown if cell.text]
    width = max(len(name) for name, _ in shown)
    return "".join(f"{name:<{width}}  {screen.paint(cell.text, cell.colour)}\n" for name, cell in shown)
