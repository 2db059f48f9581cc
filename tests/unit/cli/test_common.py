"""What commands share."""

import argparse
import io
import types

import pytest

from vpmem_driver.cli import common
from vpmem_driver.pool import wipes


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("name", ["a[/b]", "[bold]a", "a[", "[[]]", "{task}"])
def test_a_namespace_with_brackets_in_its_name_raises_markup_error(name):
    terminal = Terminal()
    command = types.SimpleNamespace(app=types.SimpleNamespace(stderr=terminal))
    with common.wipe_progress(command) as show:
        for done in (0, 4096):
            show(wipes.WipeProgress(uuid="uuid", name=name, phase="zero", done=done, size=4096))
    assert f"wiping {name}" in terminal.getvalue()


@pytest.mark.parametrize("text", ["", "x", "-1", "11", "1.5", "9" * 5000, "\udcff", "1e1"])
def test_what_is_no_number_from_0_to_10(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is not a whole number between 0 and 10"):
        common.whole_number(0, 10)(text)


def test_the_ends_of_a_range():
    read = common.whole_number(0, 10)
    assert (read("0"), read("10")) == (0, 10)
