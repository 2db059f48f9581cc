"""One virtual host with CXL memory for all tests of a run."""

import pytest

from tests.lab.cxl import host as cxl_host
from tests.lab.cxl import ready


@pytest.fixture(scope="session")
def host():
    """Switched on, with namespaces, and configured."""
    with cxl_host.virtual_host() as made:
        made.boot()
        ready.make_regions(made)
        ready.make_namespaces(made)
        ready.configure(made)
        yield made
