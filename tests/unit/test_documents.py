"""The documents name what there is."""

import ast
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]


def table(document, heading):
    """The rows of the first table after a heading, each as a list of cells."""
    text = (ROOT / "doc" / document).read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2]
    lines = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE).group().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def cases_of(module):
    """The classes of tests in a module, each with the names of its tests."""
    path = ROOT / "tests/novatests/ours" / f"{module}.py"
    classes = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]
    return {node.name: {one.name for one in node.body if isinstance(one, ast.FunctionDef)} for node in classes}


def test_each_operation_of_nova_has_a_test():
    operations = [row[0] for row in table("operation.md", "Nova")]
    rows = table("architecture.md", "Nova's operations and their tests")
    assert [row[0] for row in rows] == operations
    for _, tests in rows:
        for name in re.findall(r"`([^`]+)`", tests):
            module, class_name, *test = name.split(".")
            found = cases_of(module)
            assert class_name in found, name
            assert set(test) <= found[class_name], name
