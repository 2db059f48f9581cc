"""How owners are shown."""

import types

from vpmem_driver import exception
from vpmem_driver.cli import owners

FIRST = "11111111-1111-4111-8111-111111111111"
SAME_DIGITS = "11111111-2222-4222-8222-222222222222"
OTHER = "33333333-3333-4333-8333-333333333333"


def of(uuids, names):
    return owners.Owners(uuids, types.SimpleNamespace(names=lambda uuids, limit: names))


def test_the_name_that_libvirt_knows():
    shown = of([FIRST], {FIRST: "db1"})
    assert shown.short(FIRST) == "db1"
    assert shown.full(FIRST) == f"db1 ({FIRST})"
    assert shown.short(None) == shown.full(None) == ""


def test_a_uuid_is_shortened_only_if_no_other_owner_begins_like_it():
    shown = of([FIRST, OTHER], {})
    assert (shown.short(FIRST), shown.short(OTHER)) == ("11111111", "33333333")
    shown = of([FIRST, SAME_DIGITS, OTHER], {})
    assert (shown.short(FIRST), shown.short(SAME_DIGITS), shown.short(OTHER)) == (FIRST, SAME_DIGITS, "33333333")
    assert shown.full(OTHER) == OTHER


def test_a_name_with_control_characters_is_escaped():
    assert of([FIRST], {FIRST: "a\x1b[31m"}).short(FIRST) == r"a\x1b[31m"


def test_a_libvirt_that_does_not_answer_is_a_warning(caplog):
    def names(uuids, limit):
        raise exception.LibvirtError(uri="qemu:///system", reason="no answer", remedy="Check it")

    shown = owners.Owners([FIRST], types.SimpleNamespace(names=names))
    assert shown.short(FIRST) == "11111111"
    assert "Owners are shown by uuid. libvirt (qemu:///system): no answer." in caplog.text
