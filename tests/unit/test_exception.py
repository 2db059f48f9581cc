"""The error tree matches its docstring, and each message contains its fields and ends with one full stop."""

import inspect
import re

import pytest

from vpmem_driver import exception


def subclasses(root: type[exception.VPMEMError]) -> dict[str, type[exception.VPMEMError]]:
    found = {root.__name__: root}
    for child in root.__subclasses__():
        if child.__module__ == exception.__name__:
            found |= subclasses(child)
    return found


TREE = subclasses(exception.VPMEMError)


def drawn() -> dict[str, str | None]:
    """Each class of the docstring's tree, and its parent there."""
    parents: dict[str, str | None] = {}
    path: list[tuple[int, str]] = []
    for line in (exception.__doc__ or "").splitlines():
        if match := re.match(r"([ │├└─]*)(\w+)( {2,}|$)", line.removeprefix("    ")):
            depth, name = len(match[1]), match[2]
            if name in TREE:
                path = [step for step in path if step[0] < depth]
                parents[name] = path[-1][1] if path else None
                path.append((depth, name))
    return parents


def test_the_docstring_draws_the_tree():
    actual = {name: cls.__base__.__name__ for name, cls in TREE.items() if cls is not exception.VPMEMError}
    assert drawn() == actual | {"VPMEMError": None}


@pytest.mark.parametrize("name", sorted(TREE))
def test_each_error_has_a_message_and_an_exit_code(name):
    signature = inspect.signature(TREE[name].__init__)
    parameters = [field for field in signature.parameters.values() if field.kind is field.KEYWORD_ONLY]
    fields = [field.name for field in parameters if field.annotation is not bool]
    text = str(TREE[name](**{field: f"<{field}>" for field in fields}))
    assert all(f"<{field}>" in text for field in fields)
    assert TREE[name].exit_code in {2, 3, 4, 5, 6, 7}


@pytest.mark.parametrize("end", ["", ".", "..."])
def test_each_sentence_ends_with_one_full_stop(end):
    error = exception.InvalidOption(
        group="vpmem", option="directory", reason=f"it is not set{end}", remedy=f"Set it{end}"
    )
    assert str(error) == "[vpmem] directory: it is not set. Set it."
