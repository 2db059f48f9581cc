"""The receiving side of a migration's copy, in a process of its own. Nova is asked in this process, which has it."""

import sys
import typing

from nova import context, objects

from vpmem_driver import exception, interpreter
from vpmem_driver.nova import eventlet_poll, receive
from vpmem_driver.transfer import connection, messages

#: As vpmem-nova-receive, but this process has asked Nova already.
RECEIVER = """
import os, sys
from vpmem_driver import conf
from vpmem_driver.pool import Pool
from vpmem_driver.transfer.receiver import Receiver
pool = Pool.from_conf(conf.read([sys.argv[1]]))
expected = lambda pool, offer: [pool.find(offered.namespace) for offered in offer.namespaces]
sys.exit(not Receiver(pool, expected, lambda owner: None, os.dup(0), os.dup(1)).serve())
"""

#: Passes on what the source sends, up to some bytes.
CUT = """
import os, subprocess, sys
left = int(sys.argv[1])
child = subprocess.Popen(sys.argv[2:], stdin=subprocess.PIPE, bufsize=0)
while left > 0 and (piece := os.read(0, min(left, 65536))):
    left -= len(piece)
    try:
        child.stdin.write(piece)
    except BrokenPipeError:
        break
child.stdin.close()
sys.exit(child.wait())
"""


#: bytes after which connections break, for a copy that fails: that of the offer does not, one brings something, and the
#: others nothing more
BREAKS = (None, 2 << 20, *[20_000] * 3)


class ReceivingConnection(connection.Connection):
    """Finds out at the offer which host it is for."""

    #: bytes after which the next connections break, one each
    cuts: typing.ClassVar[list[int | None]] = []

    def __init__(self, hosts):
        super().__init__("destination", -1, -1)
        self._hosts = hosts
        self._process = None
        self._refused = None

    def write(self, message):
        if self._process is None:
            try:
                self.host = self.require_expected(message)
            except exception.VPMEMError as error:
                self._refused = messages.Refused(str(error))
                return
            self._process = connection.ProcessConnection(
                self.host, self._command(self.host), wait=eventlet_poll.wait_here()
            )
        self._process.write(message)

    def require_expected(self, message):
        """Ask Nova, as the destination does; returns which host that is."""
        migration = objects.Migration.get_by_instance_and_status(
            context.get_admin_context(), message.owner, "migrating"
        )
        self.ask(migration.dest_compute, message)
        return migration.dest_compute

    @staticmethod
    def ask(host, message):
        """Have the receiver's own functions ask. They raise what the source is to be told."""
        if isinstance(message, messages.Offer):
            receive.require_expected(host, message)
        else:
            receive.require_away(host, message.owner)

    def _command(self, host):
        command = [sys.executable, "-c", RECEIVER, str(self._hosts[host].config_file())]
        command = ["env", f"PYTHONPATH={interpreter.search_path()}", *command]
        if self.cuts and (cut := self.cuts.pop(0)) is not None:
            command = [sys.executable, "-c", CUT, str(cut), *command]
        return command

    @property
    def fd(self):
        return self._process.fd

    def read(self):
        return self._refused or self._process.read()

    def poll(self):
        return self._refused or self._process.poll()

    def end_stream(self):
        self._process.end_stream()

    def close(self):
        if self._process is not None:
            self._process.close()
