"""Make the driver loadable from Nova, and warn if this Nova version is untested."""

import importlib.metadata
import importlib.util
import logging
import pathlib
import sys

import vpmem_driver
from vpmem_driver import exception
from vpmem_driver.checkup.nova import TESTED
from vpmem_driver.nova import known_methods

LOG = logging.getLogger(__name__)


def let_nova_find_the_driver() -> None:
    """Make ``nova.virt.vpmem`` importable, wherever Nova is installed. Call this before Nova loads its driver.

    :raises InstallationError: Nova is not installed, or this package is not installed from its wheel
    """
    found = importlib.util.find_spec("nova")
    if found is None or found.origin is None:  # without Nova, this package's nova/virt is a namespace package
        raise exception.InstallationError(
            reason=f"{sys.executable} does not find Nova",
            remedy="Install this package for the Python of nova-compute; if that is the system's Python, create the "
            "environment with 'python3 -m venv --system-site-packages'",
        )
    import nova.virt  # noqa: PLC0415  Nova may be absent until here

    if importlib.util.find_spec("nova.virt.vpmem") is None:
        beside = pathlib.Path(vpmem_driver.__file__).parent.parent / "nova" / "virt"
        if not (beside / "vpmem" / "__init__.py").exists():
            raise exception.InstallationError(
                reason=f"{beside / 'vpmem'} does not exist",
                remedy="Install this package from its wheel ('./dev wheel' builds it); an editable installation does "
                "not work",
            )
        nova.virt.__path__.append(str(beside))


def warn_of_an_untested_nova() -> None:
    """Log a warning if the tests do not cover this Nova version, or a method of it that the driver overrides."""
    try:
        version = importlib.metadata.version("nova")
    except importlib.metadata.PackageNotFoundError:
        return
    if int(version.partition(".")[0]) not in TESTED:
        LOG.warning(
            "This release of vpmem_driver is tested with Nova %d to %d, but this is Nova %s",
            TESTED.start,
            TESTED.stop - 1,
            version,
        )
    from nova.virt.libvirt import driver  # noqa: PLC0415  Nova may be absent until here

    source = pathlib.Path(driver.__file__).read_text(encoding="utf-8")
    if unknown := known_methods.unknown(source, known_methods.record()):
        LOG.warning(
            "This release of vpmem_driver overrides methods that are not the same in Nova %s as in the releases it is "
            "tested with: %s. Test both together before you use them",
            *(version, ", ".join(unknown)),
        )
