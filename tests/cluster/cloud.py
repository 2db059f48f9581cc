"""The cloud, driven as its users do: by the ``openstack`` client. And what is in it: images and flavors."""

import json
import pathlib
import shutil
import typing

from tests.cluster import settings
from tests.cluster.host import Host

#: Flavors by name, and their extra specs.
FLAVORS = {
    "small": {"hw:pmem": "SMALL"},
    "large": {"hw:pmem": "LARGE"},
    "both": {"hw:pmem": "LARGE,SMALL"},
    "disk": {"hw:pmem": "DISK"},
    "shelved": {"hw:pmem": "SMALL", "vpmem:on_shelve": "discard"},
    "both-shelved": {"hw:pmem": "LARGE,SMALL", "vpmem:on_shelve": "discard"},
}

#: Images, as Python, as each call of the client takes seconds. The disk is empty: guests have all that they need in
#: their initramfs.
_PROVISION = r"""
import json
import openstack
import sys

cloud = openstack.connect(
    auth_url="http://controller:5000/v3", username="admin", password=sys.argv[1], project_name="admin",
    user_domain_name="Default", project_domain_name="Default", region_name="RegionOne",
)
list(cloud.network.networks())  # Neutron 26 cannot list ports before it has listed something else

def image(name, kind, path, **properties):
    kinds = {"container_format": kind if kind != "raw" else "bare", "disk_format": kind}
    made = cloud.image.create_image(name=name, filename=path, visibility="public", **kinds, **properties)
    return made.id

boot = {
    "kernel_id": image("kernel", "aki", "/root/kernel"),
    "ramdisk_id": image("initramfs", "ari", "/root/initramfs"),
    "hw_machine_type": "q35",
}
open("/root/disk", "wb").truncate(1 << 20)
image("guest", "raw", "/root/disk", os_command_line=sys.argv[2], **boot)
image("writing-guest", "raw", "/root/disk", os_command_line=sys.argv[2] + " vpmem.write", **boot)
# Placement 13 answers 500 to one of two hosts that want to make the same class at once.
for label in {label for specs in json.loads(sys.argv[3]).values() for label in specs["hw:pmem"].split(",")}:
    cloud.placement.create_resource_class(name=f"CUSTOM_PMEM_NAMESPACE_{label}")
for name, specs in json.loads(sys.argv[3]).items():
    flavor = cloud.compute.create_flavor(name=name, ram=128, vcpus=1, disk=0)
    cloud.compute.create_flavor_extra_specs(flavor, specs)
"""


class Cloud:
    """The client, on the controller, as the administrator."""

    def __init__(self, controller: Host) -> None:
        self._controller = controller

    def run(self, *words: object) -> str:
        """Run ``openstack`` with these arguments; returns what it printed.

        :raises RuntimeError: it failed; what it said is in the message
        """
        return self._controller.run("sh", "-c", '. /root/openrc; exec timeout 900 openstack "$@"', "openstack", *words)

    def show(self, *words: object) -> typing.Any:
        """What a command of the client shows, decoded."""
        return json.loads(self.run(*words, "--format", "json"))


def provision(controller: Host, kernel: pathlib.Path, initramfs: pathlib.Path, command_line: str) -> None:
    """Make images and flavors."""
    for name, path in {"kernel": kernel, "initramfs": initramfs}.items():
        shutil.copy(path, controller.root / "root" / name)
    flavors = json.dumps(FLAVORS)
    controller.run("python3", "-", settings.PASSWORD, command_line, flavors, given=_PROVISION)
