"""The wipe of a service that may not open devices: the privileged side looks namespaces up in its own configuration."""

import shlex
import sys

from tests.functional.conftest import Host, is_zero, new_owner
from vpmem_driver.wipe import Outcome


def command(config_file):
    """As ``vpmem-wipe``, with another place for what belongs to root."""
    program = (
        f"from vpmem_driver.wipe import privileged; privileged.CONFIG_FILE = {str(config_file)!r}; privileged.main()"
    )
    return shlex.join([sys.executable, "-c", program])


def test_a_namespace_of_its_own_configuration_is_wiped(host):
    host.options["wipe_command"] = command(host.config_file())
    pool = host.pool()
    (grant,) = pool.claim(new_owner(), ["LARGE"])
    assert is_zero(host.path(grant.name))


def test_what_only_the_request_names_is_not_touched(host, tmp_path):
    """Else the service could have any file of the host overwritten, by naming its directory."""
    (tmp_path / "root").mkdir()
    theirs = Host(tmp_path / "root")
    theirs.make("real0")
    theirs.pmem_namespaces = []
    host.options["wipe_command"] = command(theirs.config_file())
    pool = host.pool()
    before = host.path("large0").read_bytes()
    (result,) = pool.wipe([pool.find("large0")])
    assert (result.outcome, result.reason) == (Outcome.HOST, "discovery does not find it")
    assert host.path("large0").read_bytes() == before
