"""A made-up host: a directory with files of /sys, /proc and /etc, and programs that only print."""

import types

import pytest

from vpmem_driver import layout, model
from vpmem_driver.checkup.host import Host
from vpmem_driver.sizes import MIB


class MadeHost(Host):
    """Has the files and programs that a test gives it."""

    def __init__(self, root):
        super().__init__(str(root))
        self.programs = {}
        self.root = root

    def run(self, *words):
        return self.programs.get(" ".join(words))

    def write(self, path, text=""):
        file = self.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def bind(self, device, driver):
        self.write(f"/sys/bus/dax/devices/{device}/size", "65011712\n")
        if driver:
            self.path(f"/sys/bus/dax/drivers/{driver}").mkdir(parents=True, exist_ok=True)
            self.path(f"/sys/bus/dax/devices/{device}/driver").symlink_to(f"../../drivers/{driver}")


@pytest.fixture
def made(tmp_path):
    """A sound host with one region and two devices."""
    host = MadeHost(tmp_path)
    host.write("/sys/bus/nd/devices/region0/badblocks")
    host.path("/sys/bus/nd/devices/region0/driver").symlink_to("../../drivers/nd_region")
    for number in range(2):
        host.bind(f"dax0.{number}", "device_dax")
    host.path("/sys/devices/system/node/node0").mkdir(parents=True)
    return host


def namespace(name, **values):
    known = {"size": 250 * MIB, "align": 2 * MIB, "numa_node": 0, "mode": "devdax", "device": f"/dev/{name}"}
    return model.Namespace(uuid=f"uuid-{name}", name=name, **(known | {"pmem": True} | values))


def seen(*namespaces, labels=None, hardware=model.IN_TREE, device_model=None):
    """A snapshot of these namespaces, all with a label."""
    records = [
        types.SimpleNamespace(
            uuid=ns.uuid,
            name=ns.name,
            label="L" if labels is None else labels.get(ns.name),
            state=state,
            guest_size=layout.guest_size_of(ns.size, ns.align, hardware),
            device_model=device_model,
        )
        for ns in namespaces
        for state in ["unusable" if ns.unusable else "clean"]
    ]
    return types.SimpleNamespace(found=namespaces, records=records)


def levels(findings):
    return [str(finding.level) for finding in findings]
