"""The error tree is as its docstring draws it, and each message can be filled."""

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
    keys = re.findall(r"%\((\w+)\)s", TREE[name].msg_fmt)
    text = str(TREE[name](**{key: f"<{key}>" for key in keys}))
    assert all(f"<{key}>" in text for key in keys)
    assert TREE[name].exit_code in {2, 3, 4, 5, 6}
