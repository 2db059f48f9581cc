"""The file of labels and flavors."""

import pytest

from vpmem_driver import exception
from vpmem_driver.planning import wishes
from vpmem_driver.sizes import GIB, MIB

GOOD = """
[labels]
4GB = "4G"
SMALL = 536870912
[flavors.db]
pmem = "4GB, small,4GB"
count = 3
[flavors.cache]
pmem = "SMALL"
count = 0
nodes = "any"
"""


def test_a_good_file(tmp_path):
    path = tmp_path / "flavors.toml"
    path.write_text(GOOD)
    found = wishes.read(str(path))
    assert found.labels == (wishes.Label("4GB", 4 * GIB), wishes.Label("SMALL", 512 * MIB))
    db, cache = found.flavors
    assert (db.numbers, db.count, db.weight, db.one_node) == ((2, 1), 3, 1, True)
    assert (cache.numbers, cache.count, cache.one_node) == ((0, 1), 0, False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "labels"),
        ("x", "Expected"),
        ("[labels]\n[flavors]\n", "it has no flavor"),
        ("labels = 3\n[flavors.a]\npmem = 'L'", "labels"),
        ("[labels]\nL = 'much'\n[flavors.a]\npmem = 'L'", "it is not a size"),
        ("[labels]\nL = 0\n[flavors.a]\npmem = 'L'", "it is not a size"),
        ("[labels]\nL = -5\n[flavors.a]\npmem = 'L'", "it is not a size"),
        ("[labels]\n'a|b' = 4\n[flavors.a]\npmem = 'L'", "comma, colon or bar"),
        ("[labels]\n-a = 4\n[flavors.a]\npmem = 'L'", "begins with a minus"),
        ("[labels]\n" + "L" * 49 + " = 4\n[flavors.a]\npmem = 'L'", "more than 48 bytes"),
        ("[labels]\nL = 4\nl = 5\n[flavors.a]\npmem = 'L'", "same resource class"),
        ("[labels]\nL = 4\n[flavors.a]\npmem = 'M'", "there is no label 'M'"),
        ("[labels]\nL = 4\n[flavors.a]\npmem = ''", "there is no label ''"),
        ("[labels]\nL = 4\n[flavors.a]\npmem = 'L'\ncount = -1", "count is not between"),
        ("[labels]\nL = 4\n[flavors.a]\npmem = 'L'\nweight = 0", "weight is not between"),
        ("[labels]\nL = 4\n[flavors.a]\npmem = 'L'\ncount = 1.5", "count"),
        ("[labels]\nL = 4\n[flavors.a]\npmem = 'L'\nnodes = 'two'", "neither 'one' nor 'any'"),
        ("[labels]\nL = 4\n[flavors.a]\npmem = 'L'\nnumber = 3", "number"),
        ("[labels]\nL = 4\n[flavors.a]\npmem = 'L'\ncount = 1\n[flavors.b]\npmem = 'L'", "every flavor a count"),
        ("[labels]\nL = 4\n[flavors.a]\npmem = 'L'\ncount = 1\nweight = 1", "every flavor a count"),
        ("a = " + "[" * 5000, ""),
    ],
)
def test_a_bad_file(text, said):
    with pytest.raises(exception.InvalidRequest) as caught:
        wishes.parse(text, "flavors.toml")
    assert said in str(caught.value)
    assert "flavors.toml" in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path):
    (tmp_path / "latin").write_bytes(b"\xff")
    for path in (tmp_path, tmp_path / "absent", tmp_path / "latin", "", "a\0b"):
        with pytest.raises(exception.InvalidRequest):
            wishes.read(str(path))
