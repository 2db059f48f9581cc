"""Deliberate mistakes in the driver, which the walk must find, and the steps that show them soonest."""

import contextlib
import dataclasses
import pkgutil
from collections.abc import Callable

import fixtures

_MIXIN = "vpmem_driver.nova.mixin"
_DRIVER = f"{_MIXIN}.VPMEMDriverMixin"
_POOL = "vpmem_driver.nova.host.HostPool"
_LEFTOVERS = "vpmem_driver.nova.leftovers.Leftovers"


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A deliberate mistake.

    :ivar apply: gives a test a driver with that mistake
    :ivar steps: the steps that are chosen more often, to find it sooner
    """

    apply: Callable
    steps: tuple[str, ...]


def _decides(**actions):
    """Decide for another action in the rows whose condition is named."""

    def apply(test):
        from nova.compute import task_states

        from vpmem_driver.nova import decisions

        right = decisions.on_cleanup

        def wrong(cleanup):
            conditions = {
                "hard_reboot": cleanup.hard_reboot,
                "migrate_data": cleanup.migrate_data,
                "elsewhere": not cleanup.here and not cleanup.migrate_data and not cleanup.hard_reboot,
                "reverting": cleanup.here and cleanup.task_state == task_states.RESIZE_REVERTING,
                "rebuilding": cleanup.here and cleanup.task_state in decisions.REBUILDING,
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


def _wraps(target, wrap):
    """Replace a method or function by what `wrap` makes of it."""

    def apply(test):
        owner, _, method = target.rpartition(".")
        original = getattr(pkgutil.resolve_name(owner), method)
        test.useFixture(fixtures.MonkeyPatch(target, wrap(original)))

    return apply


def _both(*some):
    def apply(test):
        for one in some:
            one(test)

    return apply


def _wipes_do_nothing(test):
    from novatests import switch

    test.useFixture(fixtures.MonkeyPatch("vpmem_driver.engine.Engine.run", switch._no_wipes))


@contextlib.contextmanager
def _keeps_what_fails(_driver, _context, _instance):
    yield


def _releases_what_fails(starting):
    @contextlib.contextmanager
    def wrong(driver, instance):
        try:
            with starting(driver, instance):
                yield
        except Exception:
            driver._vpmem.starts.release(instance.uuid)
            raise

    return wrong


def _releases_when_moved(migrate):
    def wrong(driver, context, instance, *args, **kwargs):
        moved = migrate(driver, context, instance, *args, **kwargs)
        driver._vpmem.starts.release(instance.uuid)
        return moved

    return wrong


def _turns_around(claim):
    def wrong(pool, instance, names, **kwargs):
        held = bool(pool.held(instance))
        grants = claim(pool, instance, names, **kwargs)
        return grants[::-1] if held else grants

    return wrong


def _trusts_the_record(adopt):
    return lambda *args, trusted, **kwargs: adopt(*args, trusted=True, **kwargs)


_IGNORES_LEFTOVERS = _replaces(f"{_LEFTOVERS}.release_unneeded", lambda *_args: None)

MUTANTS = {
    "wipes do nothing": Mutant(_wipes_do_nothing, ("delete",)),
    "hard reboot releases": Mutant(_decides(hard_reboot="RELEASE"), ("hard_reboot",)),
    "hard reboot wipes": Mutant(_decides(hard_reboot="RENEW"), ("hard_reboot",)),
    "a start that fails releases": Mutant(
        _wraps(f"{_DRIVER}._starting", _releases_what_fails), ("stop", "start_fails", "hard_reboot_fails")
    ),
    "a restart swaps devices": Mutant(_wraps(f"{_POOL}.claim", _turns_around), ("hard_reboot",)),
    "rebuild keeps the bytes": Mutant(_decides(rebuilding="KEEP"), ("rebuild",)),
    "resize releases at the source": Mutant(
        _wraps("nova.virt.libvirt.driver.LibvirtDriver.migrate_disk_and_power_off", _releases_when_moved),
        ("resize", "migrate"),
    ),
    "revert releases all": Mutant(_decides(reverting="RELEASE"), ("resize", "revert")),
    "revert keeps": Mutant(_decides(reverting="KEEP"), ("resize", "revert")),
    "confirm releases all": Mutant(
        _wraps(f"{_POOL}.release_others", lambda right: lambda pool, instance, _names: right(pool, instance, [])),
        ("resize", "confirm"),
    ),
    "confirm keeps": Mutant(_replaces(f"{_POOL}.release_others", lambda *_args: None), ("resize", "confirm")),
    "leftovers are released at once": Mutant(
        _replaces(f"{_LEFTOVERS}._reason_to_keep", lambda *_args, **_kwargs: None), ("resize_fails_at_dest", "periodic")
    ),
    "a restart trusts Nova's record": Mutant(
        _wraps("vpmem_driver.nova.takeover._adopt", _trusts_the_record), ("resize_fails_at_dest", "restart")
    ),
    "delete keeps": Mutant(_decides(deleting="KEEP"), ("delete",)),
    "local delete keeps": Mutant(
        _replaces(f"{_DRIVER}._release_deleted", lambda *_args: None),
        ("resize_fails_at_dest", "take_down", "delete"),
    ),
    "shelve keeps": Mutant(_decides(shelving="KEEP"), ("shelve",)),
    "live migration keeps": Mutant(_decides(migrate_data="KEEP"), ("live_migrate",)),
    # Each of the two releases what is left.
    "a source that returns keeps": Mutant(
        _both(_decides(elsewhere="KEEP"), _IGNORES_LEFTOVERS), ("take_down", "evacuate", "bring_back")
    ),
    "moves discard": Mutant(_replaces("vpmem_driver.nova.moves.on_move", lambda _flavor: "discard"), ("resize",)),
    "unshelving brings nothing back": Mutant(
        _replaces(f"{_DRIVER}._bring_back", lambda *_args: None), ("shelve", "unshelve")
    ),
    "spawn failure keeps": Mutant(
        _replaces(f"{_DRIVER}._releasing_on_failure", _keeps_what_fails), ("shelve", "unshelve_fails")
    ),
}


def apply(test, name):
    """Have the test run with that mistake; none when `name` is None."""
    if name is not None:
        MUTANTS[name].apply(test)
        test.favoured = MUTANTS[name].steps
