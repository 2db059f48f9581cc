"""Which versions of Nova's methods this package is known to work with: those that the mixin overrides.

``known_methods.json`` has, for each method, every signature and the digest of every body in the releases of Nova that
this package is tested with. ``./dev nova-master`` writes it.
"""

import ast
import hashlib
import json
import pathlib
import typing
from collections.abc import Collection, Mapping

RECORD = pathlib.Path(__file__).with_suffix(".json")

#: The class that has the methods, in nova/virt/libvirt/driver.py.
CLASS = "LibvirtDriver"


class Method(typing.NamedTuple):
    """A method: its parameters as text, and a digest of its source, which the indentation does not change."""

    signature: str
    body: str


#: Of a method that the class does not have, or only inherits.
ABSENT = Method("", "")


def methods(source: str, names: Collection[str]) -> dict[str, Method]:
    """Return the named methods of the class, from the source text of its module; :data:`ABSENT` for the others.

    The digest is that of the text, comments included, as Python's versions compile and print the same text differently.

    :raises SyntaxError: the source is not Python
    """
    (found,) = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == CLASS]
    lines = source.splitlines()
    return dict.fromkeys(names, ABSENT) | {
        node.name: Method(ast.unparse(node.args), _digest(lines[node.lineno - 1 : node.end_lineno]))
        for node in found.body
        if isinstance(node, ast.FunctionDef) and node.name in names
    }


def _digest(lines: list[str]) -> str:
    text = "\n".join(line.strip() for line in lines)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def record() -> dict[str, dict[Method, list[str]]]:
    """Return, for each method that the mixin overrides, what it is in which releases."""
    written = json.loads(RECORD.read_text(encoding="utf-8"))
    return {
        name: {Method(one["signature"], one["body"]): one["releases"].split() for one in known}
        for name, known in written.items()
    }


def unknown(source: str, recorded: Mapping[str, Collection[Method]]) -> list[str]:
    """Return the methods that are different from those of every recorded release."""
    present = methods(source, recorded)
    return sorted(name for name, known in recorded.items() if present[name] not in known)
