"""An owner that starts anew: what it names is wiped and stays with it, the rest is left alone."""

import pytest

from tests.functional.conftest import fill, is_zero, new_owner
from vpmem_driver import exception


def test_what_is_not_named_is_left_alone(host):
    pool, owner = host.pool(), new_owner()
    first, second = pool.claim(owner, ["SMALL", "SMALL"])
    paths = [host.path(grant.name) for grant in (first, second)]
    kept = [fill(path) for path in paths][1]
    pool.renew(owner, [first.uuid])
    pool.claim_exact(owner, [first.uuid])
    assert is_zero(paths[0])
    assert paths[1].read_bytes() == kept
    assert [grant.uuid for grant in pool.grants(owner)] == [first.uuid, second.uuid]


def test_what_it_does_not_hold_is_refused_and_nothing_is_changed(host):
    pool, owner, other = host.pool(), new_owner(), new_owner()
    (mine,), (theirs,) = pool.claim(owner, ["SMALL"]), pool.claim(other, ["SMALL"])
    with pytest.raises(exception.NotOwner):
        pool.renew(owner, [mine.uuid, theirs.uuid])
    assert all(grant.ready for grant in pool.grants(owner) + pool.grants(other))
