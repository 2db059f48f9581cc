"""A login on the controller, on this terminal."""

import subprocess
import sys

from tests.cluster import cluster

_WELCOME = """\
. /root/openrc
PS1='cluster:\\w# '
cat <<'END'

OpenStack with two compute hosts, compute1 and compute2, on Debian's packages, with this project's driver.
You are root on the controller, and the cloud's administrator. All is gone when you leave, with 'exit'. Try:

    openstack compute service list
    openstack server create --flavor both --image guest --no-network --host compute1 --wait first
    openstack server migrate --host compute2 --wait first && openstack server migration confirm first
    openstack console log show first
    ssh root@compute1 vpmem --config-file /etc/nova/nova.conf namespace list

END
"""


def main() -> int:
    """Start the cluster and log in; returns when that is left."""
    if not sys.stdin.isatty():
        print("There is no terminal to log in on.", file=sys.stderr)
        return 1
    with cluster.running() as made:
        made.controller.write("/root/.cluster", _WELCOME)
        login = made.controller.enter("bash", "--rcfile", "/root/.cluster", "-i")
        subprocess.run(login, check=False)
    return 0
