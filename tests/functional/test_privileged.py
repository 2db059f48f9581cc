"""The wipe of a service that may not open devices: the privileged side looks namespaces up in its own configuration."""

import os
import pathlib
import shlex
import subprocess
import sys

from tests.functional.conftest import Host, is_zero, new_owner
from vpmem_driver.wipe import Outcome


def command(config_file):
    """As ``vpmem-wipe``, with another place for what belongs to root."""
    program = (
        f"from vpmem_driver.wipe import privileged; privileged.CONFIG_FILE = {str(config_file)!r}; privileged.main()"
    )
    return shlex.join([sys.executable, "-c", program])


def test_of_what_root_may_do_it_keeps_what_a_wipe_needs():
    """And what it executes, such as ndctl, has no more."""
    program = (
        "from vpmem_driver.wipe import capabilities as c; c.keep_only(*c.FOR_A_WIPE);"
        "import subprocess; print(open('/proc/self/status').read());"
        "print(subprocess.run(['cat', '/proc/self/status'], capture_output=True, text=True, check=True).stdout)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    before = dict(
        line.split(":\t") for line in pathlib.Path("/proc/self/status").read_text().splitlines() if "Cap" in line
    )
    wanted = 1 << 1 | 1 << 19 | 1 << 40
    for status in said.strip().split("\n\n"):
        after = dict(line.split(":\t") for line in status.splitlines() if line.startswith(("Cap", "NoNewPrivs")))
        assert after["NoNewPrivs"] == "1"
        for name in ("CapEff", "CapPrm"):
            assert int(after[name], 16) == int(before[name], 16) & wanted
        assert int(after["CapInh"], 16) == 0
        if os.geteuid() == 0:
            assert int(after["CapBnd"], 16) == int(before["CapBnd"], 16) & wanted


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
