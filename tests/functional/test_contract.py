"""The contract, over libvirt's own test driver: it starts nothing, so it is kind about all that QEMU would find."""

import libvirt
import pytest

from tests.contract.real import NvdimmContract, RealContract
from vpmem_driver import model


class OverTestDriver:
    uri = "test:///default"
    domain_type = "test"

    @pytest.fixture(autouse=True)
    def _runner(self, tmp_path):
        libvirt.registerErrorHandler(lambda _context, _error: None, None)
        self.directory = tmp_path
        self.connection = libvirt.open(self.uri)  # its domains are there as long as this is
        yield
        self.clean_up()
        self.connection.close()


class TestContract(OverTestDriver, NvdimmContract):
    pass


class TestVirtioPmem(OverTestDriver, RealContract):
    hardware = model.Hardware(model.DeviceModel.VIRTIO_PMEM, 0)
