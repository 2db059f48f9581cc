"""Has Nova's own tests, unmodified, use our driver; and says what was really made.

To be called before a test runs: :func:`by_option` for functional tests, which set ``compute_driver``, so that all goes
through what a deployment goes through; :func:`by_class` for unit tests, which name the class.
"""

import atexit
import collections
import functools
import os
import pathlib
import sys
import tempfile

import fixtures
import nova.tests.functional  # noqa: F401  first of Nova's: it patches with eventlet, or forbids it
from nova import test
from nova.conf import CONF
from nova.virt.libvirt import driver as libvirt_driver
from oslo_utils import importutils

from vpmem_driver import conf, engine
from vpmem_driver.discovery import ndctl
from vpmem_driver.nova import host

INTREE = "libvirt.LibvirtDriver"
OURS = "vpmem.VPMEMLibvirtDriver"

#: Options where the namespaces are made up.
MADE_UP = {"on_move": "discard", "on_shelve": "discard"}

#: class name -> how many were made in this process
MADE = collections.Counter()


def by_option(*, wipes: bool) -> None:
    """Tests that set ``compute_driver`` to the in-tree driver get ours, and a ledger of its own for each host.

    :param wipes: False where the namespaces are made up, as in Nova's own tests: wipes then do nothing, and there is
        nothing to copy
    """
    original = test.TestCase.flags

    def flags(self, **options):
        if options.get("compute_driver") == INTREE:
            options["compute_driver"] = os.environ.get("VPMEM_COMPUTE_DRIVER", OURS)
            conf.register_opts(CONF)
            state = self.useFixture(fixtures.TempDir()).path
            original(self, state_path=f"{state}/$host", group="vpmem")
            if not wipes:
                original(self, **MADE_UP, group="vpmem")
        return original(self, **options)

    test.TestCase.flags = flags
    if not wipes:
        engine.Engine.run = _no_wipes
    _hide_hardware()
    _count()


def by_class() -> None:
    """``LibvirtDriver(...)`` makes an object of our class, which inherits what is patched into LibvirtDriver."""
    ours = importutils.import_class(f"nova.virt.{OURS}")
    intree = libvirt_driver.LibvirtDriver
    conf.register_opts(CONF)
    state = tempfile.TemporaryDirectory(prefix="vpmem-tests-")
    atexit.register(state.cleanup)

    def __new__(cls, *args, **kwargs):  # noqa: N807
        # Each driver that a test makes is on a host of its own.
        for name, value in (MADE_UP | {"state_path": f"{state.name}/{len(MADE)}-{MADE.total()}"}).items():
            CONF.set_default(name, value, group="vpmem")
        return object.__new__(ours if cls is intree else cls)

    intree.__new__ = __new__
    engine.Engine.run = _no_wipes
    _hide_hardware()
    _count()


def _hide_hardware() -> None:
    """Beside what their ndctl prints, these hosts have nothing: Nova's fixtures forbid tests to read /sys."""
    host.NdctlDiscovery = functools.partial(ndctl.NdctlDiscovery, sysfs_root="/nonexistent")


def _no_wipes(self, jobs, watcher, stop=None):
    """In place of the privileged wipe: Nova's tests replace its own in the same way."""
    results = {}
    for job in jobs:
        result = job.ended(engine.Outcome.WIPED if watcher.may_start(job) else engine.Outcome.STOPPED)
        watcher.finished(result)
        results[job.uuid] = result
    return results


def _count() -> None:
    """With VPMEM_MADE set, write to that file at exit what drivers were made, by class; workers are processes.

    And whether Nova ran with native threads or under eventlet.
    """
    original = libvirt_driver.LibvirtDriver.__init__

    def __init__(self, *args, **kwargs):  # noqa: N807
        MADE[f"{type(self).__module__}.{type(self).__qualname__}"] += 1
        original(self, *args, **kwargs)

    libvirt_driver.LibvirtDriver.__init__ = __init__

    def report():
        if MADE and (path := os.environ.get("VPMEM_MADE")):
            with pathlib.Path(path).open("a", encoding="utf-8") as file:
                file.writelines(f"{count} {name}, {_mode()}\n" for name, count in sorted(MADE.items()))

    atexit.register(report)


def _mode() -> str:
    patcher = sys.modules.get("eventlet.patcher")
    return "eventlet" if patcher is not None and patcher.is_monkey_patched("thread") else "native threads"
