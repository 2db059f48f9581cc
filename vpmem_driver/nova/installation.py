"""Whether Nova can find this driver, and is one that it was made for."""

import importlib.metadata
import importlib.util
import logging
import pathlib
import sys

import vpmem_driver
from vpmem_driver import exception

LOG = logging.getLogger(__name__)

#: Nova's major versions that the tests run on: 2025.1 to 2026.2.
TESTED = range(31, 35)


def let_nova_find_the_driver() -> None:
    """Have ``nova.virt.vpmem`` found, wherever Nova is. To be called before Nova loads its driver.

    :raises InstallationError: Nova is not there, or this package is not as its wheel would have it
    """
    found = importlib.util.find_spec("nova")
    if found is None or found.origin is None:  # this package's own nova/virt makes a namespace package of that name
        raise exception.InstallationError(
            reason=f"{sys.executable} does not find Nova",
            remedy="Install this package where nova-compute's Python is; where that is the system's own, make the "
            "environment with 'python3 -m venv --system-site-packages'",
        )
    import nova.virt  # noqa: PLC0415  only now is it known to be there

    if importlib.util.find_spec("nova.virt.vpmem") is None:
        beside = pathlib.Path(vpmem_driver.__file__).parent.parent / "nova" / "virt"
        if not (beside / "vpmem" / "__init__.py").exists():
            raise exception.InstallationError(
                reason=f"{beside / 'vpmem'} is not there",
                remedy="Install this package from its wheel ('./dev wheel' makes it), not as an editable one",
            )
        nova.virt.__path__.append(str(beside))


def warn_of_an_untested_nova() -> None:
    """Say so when the driver runs in a Nova that the tests do not know."""
    try:
        version = importlib.metadata.version("nova")
    except importlib.metadata.PackageNotFoundError:
        return
    if int(version.partition(".")[0]) not in TESTED:
        LOG.warning(
            "This release of vpmem_driver is tested with Nova %d to %d, and this is Nova %s",
            TESTED.start,
            TESTED.stop - 1,
            version,
        )
