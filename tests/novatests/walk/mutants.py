"""Deliberate mistakes in the driver. The walk must find each of them."""

import contextlib

import fixtures

_MIXIN = "vpmem_driver.nova.mixin"
_POOL = "vpmem_driver.nova.host.HostPool"


def _decides(**actions):
    """Decide for another action in the rows whose condition is named."""

    def apply(test):
        from nova.compute import task_states

        from vpmem_driver.nova import decisions

        right = decisions.on_cleanup
        rebuild = decisions._REBUILD

        def wrong(cleanup):
            conditions = {
                "hard_reboot": cleanup.hard_reboot,
                "migrate_data": cleanup.migrate_data,
                "elsewhere": not cleanup.here and not cleanup.migrate_data and not cleanup.hard_reboot,
                "reverting": cleanup.here and cleanup.task_state == task_states.RESIZE_REVERTING,
                "rebuilding": cleanup.here and cleanup.task_state in rebuild,
                "deleting": cleanup.here and cleanup.task_state == task_states.DELETING,
                "shelving": cleanup.here and cleanup.task_state == task_states.SHELVING_OFFLOADING,
            }
            for name, action in actions.items():
                if conditions[name]:
                    return decisions.Action[action]
            return right(cleanup)

        test.useFixture(fixtures.MonkeyPatch(f"{_MIXIN}.on_cleanup", wrong))

    return apply


def _replaces(target, function):
    return lambda test: test.useFixture(fixtures.MonkeyPatch(target, function))


def _wipes_do_nothing(test):
    from novatests import switch

    test.useFixture(fixtures.MonkeyPatch("vpmem_driver.engine.Engine.run", switch._no_wipes))


@contextlib.contextmanager
def _keeps_what_fails(_driver, _context, _instance):
    yield


#: name -> how a test is given a driver with that mistake
MUTANTS = {
    "hard reboot releases": _decides(hard_reboot="RELEASE"),
    "hard reboot wipes": _decides(hard_reboot="RENEW"),
    "revert releases all": _decides(reverting="RELEASE"),
    "revert keeps": _decides(reverting="KEEP"),
    "rebuild keeps the bytes": _decides(rebuilding="KEEP"),
    "rebuild releases": _decides(rebuilding="RELEASE"),
    "delete keeps": _decides(deleting="KEEP"),
    "shelve keeps": _decides(shelving="KEEP"),
    "live migration keeps": _decides(migrate_data="KEEP"),
    "a source that returns keeps": _decides(elsewhere="KEEP"),
    "spawn failure keeps": _replaces(f"{_MIXIN}.VPMEMDriverMixin._releasing_on_failure", _keeps_what_fails),
    "confirm keeps": _replaces(f"{_POOL}.release_others", lambda *_args: None),
    "local delete keeps": _replaces(f"{_POOL}.release_deleted", lambda *_args: None),
    "wipes do nothing": _wipes_do_nothing,
}


def apply(test, name):
    """Have the test run with that mistake; none when `name` is None."""
    if name is not None:
        MUTANTS[name](test)
