"""Reading [libvirt] pmem_namespaces."""

import pytest

from vpmem_driver import exception
from vpmem_driver.pool import labels


def test_labels_and_namespaces_keep_their_order():
    config = labels.parse(["4GB:ns0|ns1", "SMALL: ns2 | ns3 "])
    assert config.labels == ("4GB", "SMALL")
    assert config.resource_classes == ("CUSTOM_PMEM_NAMESPACE_4GB", "CUSTOM_PMEM_NAMESPACE_SMALL")
    assert [(entry.label, entry.namespace) for entry in config.entries] == [
        (0, "ns0"),
        (0, "ns1"),
        (1, "ns2"),
        (1, "ns3"),
    ]


def test_a_label_may_stand_in_two_entries():
    config = labels.parse(["A:ns0", "B:ns1", "A:ns2"])
    assert [(entry.label, entry.namespace) for entry in config.entries] == [(0, "ns0"), (1, "ns1"), (0, "ns2")]


@pytest.mark.parametrize("spelling", ["small", "SMALL", "Small"])
def test_row_19_a_label_is_told_by_its_resource_class(spelling):
    assert labels.parse(["SMALL:ns0"]).index(spelling) == 0


def test_an_unknown_label_has_no_index():
    assert labels.parse(["SMALL:ns0"]).index("LARGE") is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ns0", "it has no colon"),
        ("", "it has no colon"),
        (":ns0", "the label is empty"),
        ("A:", "a namespace name is empty"),
        ("A:ns0||ns1", "a namespace name is empty"),
        ("A:|", "a namespace name is empty"),
    ],
)
def test_bad_syntax_names_the_entry_and_the_remedy(text, reason):
    with pytest.raises(exception.InvalidNamespaceConfig) as caught:
        labels.parse(["OK:ns9", text])
    assert f"entry '{text}': {reason}" in str(caught.value)
    assert "LABEL:NAMESPACE|NAMESPACE" in str(caught.value)


def test_two_spellings_of_one_resource_class_are_refused():
    with pytest.raises(exception.InvalidNamespaceConfig) as caught:
        labels.parse(["4-GB:ns0", "4_gb:ns1"])
    assert "labels '4_gb' and '4-GB' have the same resource class CUSTOM_PMEM_NAMESPACE_4_GB" in str(caught.value)
