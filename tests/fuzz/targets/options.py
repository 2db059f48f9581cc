"""A configuration file, as the command line reads it, up to a pool on a made host."""

import argparse
import random
from collections.abc import Iterator

from oslo_config import cfg

from tests.fuzz.finding import literal
from tests.fuzz.target import Target, words
from tests.fuzz.targets import made
from vpmem_driver.cli.main import VPMEMApp
from vpmem_driver.libvirt_domains import Domains
from vpmem_driver.pool import Pool

_SEEDS = (
    "[libvirt]\npmem_namespaces = 4GB:ns0|ns1,SMALL:ns2\n[vpmem]\ndiscovery = directory\ndirectory = /mnt/pmem\n",
    "[libvirt]\npmem_namespaces =\n[vpmem]\nwipe_command = sudo nova-rootwrap /etc/nova/rootwrap.conf vpmem-wipe\n",
    "# comment\n[vpmem]\nwipe_parallel = 4\nwipe_threads = 0\nwipe_rate = 100\nconnection_uri = test:///default\n",
    f"[libvirt]\npmem_namespaces = A:{made.UUIDS[3]}\npmem_namespaces = B:ns4\n[DEFAULT]\ndebug = true\n",
)


class Fuzzed(Target):
    words = (
        *words("[libvirt] [vpmem] [DEFAULT] pmem_namespaces= discovery= directory= state_path= connection_uri="),
        *words("wipe_command= wipe_parallel= wipe_threads= wipe_rate= A:ns0 ns0|ns1 ns0 ns4 ndctl sysfs 1e9 -1 # ="),
        *words(", : | \" ' $state_path ${ \\ \ufeff"),
        *("\n", "\n\t", "9" * 400, *made.UUIDS),
    )
    max_bytes = 1 << 17

    def __init__(self, root):
        super().__init__(root)
        self._file = root / "vpmem.conf"
        self._app = VPMEMApp()
        self._app.options = argparse.Namespace(config_file=[str(self._file)])

    def seeds(self) -> Iterator[bytes]:
        for seed in _SEEDS:
            yield seed.encode()

    def run(self, data: bytes) -> None:
        self._file.write_bytes(data)
        options = self._app.configuration()
        # No other file of this machine is written or read.
        options.set_override("state_path", str(self.root / "state"), group="vpmem")
        try:
            pool = Pool.from_conf(options, source=made.source(), domains=Domains(None))
        except cfg.Error:  # VPMEMApp.pool() makes InvalidConfigFile of it
            return
        try:
            pool.records()
            pool.inventory()
        finally:
            pool.close()

    def shown(self, data: bytes) -> str:
        return f"config_file.write_bytes({literal(data)})"

    def mutate(self, data: bytes, chance: random.Random) -> bytes | None:
        at = chance.randrange(len(data) + 1)
        word = chance.choice(self.words).encode()
        end = min(at + (1 << chance.randrange(6)), len(data))
        match chance.randrange(3):
            case 0:
                return data[:at] + word + data[at:]
            case 1:
                return data[:at] + word + data[end:]
        piece = data[at:end]
        many = [piece.replace(b"0", b"%d" % number) for number in range(1 << chance.randrange(15))]
        return data[:at] + b"".join(many) + data[end:]
