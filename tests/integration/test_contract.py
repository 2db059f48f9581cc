"""The contract, over libvirtd and QEMU; and what QEMU does that the test driver does not."""

import pathlib
import uuid

import pytest

from tests.contract.cases import MIB
from tests.contract.real import TRAPS, NvdimmContract
from vpmem_driver import guestxml


class TestContract(NvdimmContract):
    domain_type = "qemu"

    @pytest.fixture(autouse=True)
    def _runner(self, uri, connection, tmp_path):
        self.uri = uri
        self.directory = tmp_path
        self.connection = connection
        yield
        self.clean_up()

    def test_a_size_is_rounded_up_at_start(self):
        """To 2 MiB, in the running domain only. A namespace that ends before that stops the start."""
        owner = str(uuid.uuid4())
        grant = self.grant(owner)
        text = self.written(owner, [grant]).replace(f'"KiB">{8 * 1024}<', f'"KiB">{7 * 1024}<')
        self.define(text).create()
        assert [device.size for device in guestxml.devices(self.definition(owner))] == [7 * MIB]
        assert [device.size for device in guestxml.devices(self.told(owner))] == [8 * MIB]

    def test_a_file_that_is_not_there_is_made(self):
        """With dynamic_ownership off, as here; else libvirt finds no file to give to the guest, and refuses."""
        owner = str(uuid.uuid4())
        grant = self.grant(owner)
        path = pathlib.Path(grant.device)
        path.unlink()
        self.define(self.written(owner, [grant])).create()
        assert path.stat().st_size == 8 * MIB

    def test_the_test_driver_is_kinder(self, seen):
        """Else it would do, and none of this were needed."""
        kind = sum(trap.qemu != trap.test for trap in TRAPS.values())
        assert kind
        seen(f"{len(TRAPS)} definitions", f"{kind} of them are taken otherwise by libvirt's test driver")
