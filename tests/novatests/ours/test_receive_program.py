"""vpmem-nova-receive as a process of its own: the other tests call it where Nova's tests have prepared everything."""

import os
import pathlib
import subprocess
import sys

import fixtures
from nova import test

_CONF = """\
[libvirt]
pmem_namespaces = SMALL:small0
[vpmem]
discovery = directory
directory = {root}/pmem
state_path = {root}/state
"""


class ReceiveProgramTest(test.NoDBTestCase):
    def test_vpmem_nova_receive_did_not_start(self):
        """It imported modules whose signatures have Nova's objects, before these were registered."""
        root = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        (root / "pmem").mkdir()
        (root / "pmem/small0").write_bytes(bytes(16 << 20))
        (root / "nova.conf").write_text(_CONF.format(root=root))
        done = subprocess.run(
            [sys.executable, "-m", "vpmem_driver.nova.receive", "--config-file", root / "nova.conf"],
            check=False,
            input=b"{}\n",
            capture_output=True,
            env={name: value for name, value in os.environ.items() if not name.startswith("OS_")},
        )
        self.assertIn(b'"message":"refused"', done.stdout, done.stderr.decode())
        self.assertIn(b"the sender's message is not understood", done.stdout)
