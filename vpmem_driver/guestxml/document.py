"""Parse and print domain XML, and insert and remove indented elements."""

import re

from lxml import etree

from vpmem_driver import exception
from vpmem_driver.guestxml.values import DUMP, PARSER

# Only comments, processing instructions and white space may precede a root element or a doctype.
_PROLOG = re.compile(r"(?:[\s\ufeff]|<\?.*?\?>|<!--.*?-->)*+", re.DOTALL)
_DECLARATION = re.compile(r"\A\ufeff?<\?xml\s.*?\?>\s*", re.DOTALL)


def _prolog(domain_xml: str) -> str:
    match = _PROLOG.match(domain_xml)
    return match[0] if match else ""


def parse(domain_xml: str) -> etree._Element:
    """Parse the ``<domain>`` element.

    :raises InvalidDomainXML: the text is not a domain, or has a document type
    """
    if domain_xml.startswith("<!DOCTYPE", len(_prolog(domain_xml))):
        raise exception.InvalidDomainXML(
            reason="it has a document type, which can include other files", remedy="Remove <!DOCTYPE …>"
        )
    try:
        domain = etree.fromstring(domain_xml.encode(), PARSER)
    except (etree.XMLSyntaxError, UnicodeEncodeError) as error:
        raise exception.InvalidDomainXML(reason=f"it is not XML: {error}", remedy=DUMP) from error
    if domain.tag != "domain":
        raise exception.InvalidDomainXML(reason=f"its root is <{domain.tag!s}>, not <domain>", remedy=DUMP)
    return domain


def write(domain: etree._Element, original: str) -> str:
    """Return the document as text, with everything that `original` has before and after the root element."""
    head = _DECLARATION.sub("", _prolog(original), count=1)
    nodes = [domain, *domain.itersiblings()]
    end = original[len(original.rstrip()) :]
    return head + "\n".join(etree.tostring(node, encoding="unicode", with_tail=False) for node in nodes) + end


def insert(parent: etree._Element, index: int, element: etree._Element) -> None:
    """Insert an element on its own line if the document is indented."""
    first, before = parent.text, parent[index - 1].tail if index else parent.text
    parent.insert(index, element)
    if _is_blank(before):
        element.tail = before
        if index and index == len(parent) - 1:  # `before` is the indentation of the closing tag
            parent[index - 1].tail = first
    if first and _is_blank(first) and "\n" in first:
        depth = sum(1 for _ in element.iterancestors())
        indent = first.rpartition("\n")[2]
        etree.indent(element, indent[: len(indent) // depth], level=depth)


def remove(element: etree._Element) -> None:
    """Remove an element and its indentation: the inverse of :func:`insert`."""
    previous, tail = element.getprevious(), element.tail
    if (parent := element.getparent()) is not None:
        parent.remove(element)
        if previous is None:
            parent.text = tail if _is_blank(parent.text) else parent.text
        elif _is_blank(previous.tail):
            previous.tail = tail


def _is_blank(text: str | None) -> bool:
    return not text or not text.strip()
