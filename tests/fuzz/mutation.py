"""Changes to JSON and XML that leave it JSON and XML: plain changes of bytes seldom get past a parser."""

import copy
import functools
import json
import random
import typing
from collections.abc import Sequence

from lxml import etree

#: Values at the edges of types and ranges.
VALUES: tuple[typing.Any, ...] = (
    *(None, True, False, 0, 1, -1, 4095, 1 << 31, (1 << 31) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, 1 << 64, -(1 << 63)),
    *(0.5, 1e300, "", " ", "0", "-1", "\0", "\x1b", "\n", "\ud800", "\udcff", "é", "ß", "İ", "\u2028", "\U0001f600"),
    *("[/b]", "%s", "{0}", "..", "/", "../../..", "a" * 300, "1" * 5000, str(1 << 64), [], {}, [[]], [None]),
)
#: JSON that json.dumps does not write.
_RAW = ("9" * 5000, "1e400", "-0", "NaN", "1.0", "[" * 2000, '{"a":' * 2000, r'"\ud800"', '"\xff"', "0x10", "01")
_HOLE = "@hole@"
_HOLE_JSON = json.dumps(_HOLE)
_MOST_PUMPED = 10  # doublings

_Slot = tuple[typing.Any, typing.Any]  # container and key


def json_document(data: bytes, chance: random.Random, words: Sequence[str], most: int) -> bytes | None:
    """One change to a JSON document; None when `data` is none.

    :param most: bytes of the result, about
    """
    try:
        document = [json.loads(data)]
        slots = _slots(document)
        slot = chance.choice(slots)
        if chance.random() < 0.2:
            text = _pumped(document, slots, slot, chance, most)
        elif chance.random() < 0.1:
            slot[0][slot[1]] = _HOLE
            text = _dumped(document, chance).replace(_HOLE_JSON, chance.choice(_RAW))
        else:
            _change(slot, slots, chance, words)
            text = _dumped(document, chance)
    except (ValueError, RecursionError):
        return None
    return text[1:-1].encode("utf-8", "surrogatepass")


def json_lines(data: bytes, chance: random.Random, words: Sequence[str], most: int) -> bytes | None:
    """One change to a sequence of lines, each of which is JSON."""
    lines = data.split(b"\n")
    at = chance.randrange(len(lines))
    match chance.randrange(8):
        case 0:
            del lines[at]
        case 1:
            lines.insert(at, chance.choice(lines))
        case 2:
            chance.shuffle(lines)
        case 3:
            lines[at:at] = [lines[at]] * (1 << chance.randrange(_MOST_PUMPED))
        case _:
            lines[at] = json_document(lines[at], chance, words, most) or lines[at] + b"\n"
    return b"\n".join(lines)


def _slots(document: list[typing.Any]) -> list[_Slot]:
    """Every place of a value, outer ones first."""
    found: list[_Slot] = [(document, 0)]
    for container, key in found:
        value = container[key]
        if isinstance(value, dict):
            found += [(value, name) for name in value]
        elif isinstance(value, list):
            found += [(value, index) for index in range(len(value))]
    return found


def _change(slot: _Slot, slots: Sequence[_Slot], chance: random.Random, words: Sequence[str]) -> None:
    container, key = slot
    value = container[key]
    match chance.randrange(9):
        case 0:
            container[key] = chance.choice(VALUES)
        case 1 if words:
            container[key] = chance.choice(words)
        case 2:
            other, where = chance.choice(slots)
            container[key] = copy.deepcopy(other[where])
        case 3:
            del container[key]
        case 4 if isinstance(container, list):
            container[key:key] = [copy.deepcopy(value) for _ in range(1 << chance.randrange(_MOST_PUMPED))]
        case 5 if isinstance(container, dict):
            name = chance.choice([*words, *(str(name) for _, name in slots)])
            container[name] = container.pop(key) if chance.random() < 0.5 else copy.deepcopy(value)
        case 6 if isinstance(value, list):
            chance.shuffle(value)
        case _:
            container[key] = _other(value, chance, words)


def _other(value: typing.Any, chance: random.Random, words: Sequence[str]) -> typing.Any:
    """A value like `value`."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return chance.choice([value + 1, value - 1, value * 2, -value, value << 20, str(value), float(value % 1000)])
    if not isinstance(value, str):
        return chance.choice(VALUES)
    at = chance.randrange(len(value) + 1)
    piece = chance.choice([*words, *(text for text in VALUES if isinstance(text, str)), value])
    return chance.choice(
        [
            value[:at] + piece + value[at:],
            value[:at] + value[at + 1 :],
            value[:at],
            value * (1 << chance.randrange(_MOST_PUMPED)),
            value.upper(),
            value[::-1],
        ]
    )


def _pumped(document: list[typing.Any], slots: Sequence[_Slot], slot: _Slot, chance: random.Random, most: int) -> str:
    """What is around the value in `slot`, up to some outer value, many times inside itself."""
    holders = {id(container[key]): (container, key) for container, key in slots}
    outer = [slot]
    while id(outer[-1][0]) in holders:
        outer.append(holders[id(outer[-1][0])])
    container, key = chance.choice(outer)
    inner, slot[0][slot[1]] = json.dumps(slot[0][slot[1]]), _HOLE
    head, _, tail = json.dumps(container[key]).partition(_HOLE_JSON)
    container[key] = _HOLE
    times = min(1 << chance.randrange(_MOST_PUMPED + 1), most // (len(head) + len(tail) or 1) + 1)
    return json.dumps(document).replace(_HOLE_JSON, head * times + inner + tail * times)


def _dumped(document: list[typing.Any], chance: random.Random) -> str:
    return json.dumps(document, ensure_ascii=chance.random() < 0.5, separators=(",", ":"))


@functools.cache
def _xml_parser() -> etree.XMLParser:
    return etree.XMLParser(recover=True, resolve_entities=False, no_network=True, huge_tree=True)


def xml_document(
    data: bytes, chance: random.Random, words: Sequence[str], values: Sequence[str], most: int
) -> bytes | None:
    """One change to an XML document; None when `data` is none.

    :param words: names of elements and attributes
    :param values: of text and attributes
    :param most: bytes of the result, about
    """
    try:
        root = etree.fromstring(data, _xml_parser())
    except (etree.XMLSyntaxError, ValueError):
        return None
    if root is None:
        return None
    element = chance.choice([each for each in root.iter() if isinstance(each.tag, str)])
    try:
        _change_element(element, root, chance, words, values)
        if chance.random() < 0.1:
            return _pumped_element(root, element, chance, most)
    except ValueError:  # names and text that lxml does not write
        return None
    return etree.tostring(root, encoding="utf-8")


def _change_element(
    element: etree._Element, root: etree._Element, chance: random.Random, words: Sequence[str], values: Sequence[str]
) -> None:
    parent = element.getparent()
    match chance.randrange(9):
        case 0:
            element.text = chance.choice(values)
        case 1:
            element.set(chance.choice([*words, *element.keys()]), chance.choice(values))
        case 2:
            element.tag = chance.choice(words)
        case 3 if element.attrib:
            del element.attrib[chance.choice(element.keys())]
        case 4 if parent is not None:
            parent.remove(element)
        case 5:
            other = chance.choice([each for each in root.iter() if isinstance(each.tag, str)])
            element.append(copy.deepcopy(other))
        case 6 if parent is not None:
            for _ in range(1 << chance.randrange(_MOST_PUMPED // 2)):
                parent.insert(parent.index(element), copy.deepcopy(element))
        case 7:
            node = chance.choice([etree.Comment("c"), etree.PI("p", "i"), etree.Entity("e"), etree.Element("domain")])
            element.insert(chance.randrange(len(element) + 1), node)
        case _:
            element.tail = chance.choice(values)


def _pumped_element(root: etree._Element, element: etree._Element, chance: random.Random, most: int) -> bytes:
    """`element` many times inside itself."""
    text = etree.tostring(root, encoding="unicode")
    inner = etree.tostring(element, encoding="unicode", with_tail=False)
    close = f"</{element.tag}>"
    if not inner.endswith(close):
        return text.encode()
    head = inner.removesuffix(close)
    times = min(1 << chance.randrange(_MOST_PUMPED), most // len(inner) + 1)
    return text.replace(inner, head * times + close * times, 1).encode()
