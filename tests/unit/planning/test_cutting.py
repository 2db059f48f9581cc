"""Sizes of namespaces, against what real ndctl made, and against a search by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpmem_driver.planning import cutting
from vpmem_driver.planning.cutting import Map
from vpmem_driver.sizes import GIB, KIB, MIB


@pytest.mark.parametrize(
    ("raw", "where", "data"),
    [
        (16 * MIB, Map.DEV, 14 * MIB),
        (32 * MIB, Map.DEV, 31457280),
        (32 * MIB, Map.MEM, 31457280),
        (64 * MIB, Map.DEV, 65011712),
        (134217728, Map.MEM, 132120576),
        (256 * MIB, Map.DEV, 250 * MIB),
        (256 * MIB, Map.MEM, 254 * MIB),
    ],
)
def test_as_ndctl_made_them(raw, where, data):
    assert cutting.cut(raw, 2 * MIB, where).data == data
    assert cutting.cut(raw, 4096, where).data == data


def test_a_label_costs_a_whole_alignment():
    assert cutting.cut(4 * GIB, 2 * MIB, Map.MEM).guest == 4 * GIB - 4 * MIB
    assert cutting.cut(4 * GIB, GIB, Map.MEM) == cutting.Cut(4 * GIB, 3 * GIB, 2 * GIB)
    assert cutting.cut(16 * MIB, GIB, Map.DEV).guest == 0


def test_a_guest_gets_what_its_label_area_leaves():
    assert cutting.cut(4 * GIB, GIB, Map.MEM, 0).guest == 3 * GIB
    assert cutting.cut(4 * GIB, GIB, Map.MEM, 128 * KIB).guest == 2 * GIB
    assert cutting.cut(4 * GIB, 4096, Map.MEM, 128 * KIB).guest == 4 * GIB - 2 * MIB - 128 * KIB
    assert cutting.smallest(3 * GIB, GIB, GIB, Map.MEM, 0).raw == 4 * GIB
    assert cutting.smallest(3 * GIB, GIB, GIB, Map.MEM).raw == 5 * GIB


def test_a_unit_suits_region_and_interleaving():
    assert cutting.unit(16 * MIB, 1, 2 * MIB) == 16 * MIB
    assert cutting.unit(16 * MIB, 6, 2 * MIB) == 48 * MIB
    assert cutting.unit(16 * MIB, 2, GIB) == 2 * GIB


@given(
    wanted=st.integers(1, 1 << 32),
    unit=st.sampled_from([16 * MIB, 48 * MIB, GIB]),
    align=st.sampled_from(cutting.ALIGNS),
    where=st.sampled_from(Map),
)
def test_the_smallest_that_suffices(wanted, unit, align, where):
    unit = cutting.unit(unit, 1, align)
    found = cutting.smallest(wanted, unit, align, where)
    assert found.guest >= wanted
    assert found.raw % unit == 0
    assert cutting.cut(found.raw - unit, align, where).guest < wanted
    assert cutting.cut(found.raw, align, where) == found


def test_what_no_host_can_have():
    assert cutting.smallest(1 << 52, 16 * MIB, 2 * MIB, Map.MEM) is None
