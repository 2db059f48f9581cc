"""Which namespaces may be adopted."""

import uuid

import pytest

from tests.unit.pool.test_matching import namespace, row
from vpmem_driver import exception
from vpmem_driver.model import State
from vpmem_driver.pool import requests

OWNER, OTHER = str(uuid.uuid4()), str(uuid.uuid4())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"state": State.CLAIMED, "owner": OTHER}, f"it belongs to {OTHER}"),
        ({"state": State.QUARANTINED}, "it is quarantined"),
        ({"state": State.DIRTY, "last_owner": OWNER, "begun": True}, "its wipe has begun"),
        ({"state": State.DIRTY, "last_owner": OTHER}, f"it still contains the data of {OTHER}"),
        ({"state": State.DIRTY}, "it still contains the data of an unknown owner"),
    ],
)
def test_what_may_be_anothers_is_not_adopted(values, message):
    with pytest.raises(exception.NotOwner, match=message):
        requests.require_adoptable(OWNER, row(namespace("ns0"), **values))


@pytest.mark.parametrize(
    "values",
    [{"state": State.UNKNOWN}, {"state": State.CLAIMED, "owner": OWNER}, {"state": State.DIRTY, "last_owner": OWNER}],
)
def test_what_can_only_be_its_own_is(values):
    requests.require_adoptable(OWNER, row(namespace("ns0"), **values))


def test_a_clean_one_is_if_its_domain_has_it():
    clean = row(namespace("ns0"), state=State.CLEAN)
    with pytest.raises(exception.NamespaceUnavailable, match="no data to adopt"):
        requests.require_adoptable(OWNER, clean)
    requests.require_adoptable(OWNER, clean, in_domain=True)
