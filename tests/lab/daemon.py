"""The virtual host's own libvirtd, as its packages have it, and a domain for it."""

import uuid
from collections.abc import Sequence

from tests.lab.host import VirtualHost
from tests.lab.ready import ROOT
from tests.machine import guest, kernel

BOOT = "/var/lib/libvirt/boot"
LOG = "/var/log/libvirt/guest.log"

#: Of packages only the programs are here: their scripts make the user that guests run as, and udev gives it /dev/kvm.
_START = f"""
! virsh uri > /dev/null 2>&1 || exit 0
set -e
getent group kvm > /dev/null || echo 'kvm:x:64054:' >> /etc/group
getent group libvirt-qemu > /dev/null || echo 'libvirt-qemu:x:64055:' >> /etc/group
getent passwd libvirt-qemu > /dev/null || echo 'libvirt-qemu:x:64055:64054::/:/bin/false' >> /etc/passwd
chgrp kvm /dev/kvm
chmod 660 /dev/kvm
mkdir -p /etc/libvirt/hooks/qemu.d {BOOT} /var/log/libvirt
ln -sf "$(command -v vpmem-libvirt-hook)" /etc/libvirt/hooks/qemu.d/vpmem
cp "$1" {BOOT}/vmlinuz
cp "$2" {BOOT}/initramfs
printf 'auth_unix_ro = "none"\\nauth_unix_rw = "none"\\n' > /etc/libvirt/libvirtd.conf
printf 'security_default_confined = 0\\n' > /etc/libvirt/qemu.conf
virtlogd --daemon
libvirtd --daemon
timeout 60 sh -c 'until virsh uri; do :; done'
virsh version  # it asks QEMU what it can do, for which vpmem would not wait long enough here
"""

_CPU = " cpus='0'"

#: With KVM: what is emulated is an AMD processor with its virtualization. An emulation in an emulation takes minutes.
_DOMAIN = f"""\
<domain type='kvm'>
  <name>guest</name>
  <uuid>{{uuid}}</uuid>
  <memory unit='MiB'>256</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{BOOT}/vmlinuz</kernel>
    <initrd>{BOOT}/initramfs</initrd>
    <cmdline>console=ttyS0 {kernel.QUICK} {{mode}}</cmdline>
  </os>
  <features><acpi/></features>
  {{pins}}<cpu><numa>{{cells}}</numa></cpu>
  <on_reboot>destroy</on_reboot>
  <devices>
    <controller type='usb' model='none'/>
    <serial type='file'><source path='{LOG}'/></serial>
    <memballoon model='none'/>
  </devices>
</domain>
"""


def start(host: VirtualHost) -> None:
    """Start it, at its usual places, unless it runs."""
    initramfs = guest.build(ROOT / ".tox/guest-initramfs", host.kernel)
    host.run("sh", "-c", _START, "sh", host.kernel.image, initramfs)


def define(host: VirtualHost, domain_xml: str) -> None:
    """Define a domain that is called ``guest``, in place of another one."""
    host.run("sh", "-c", "! virsh dominfo guest || virsh undefine guest")
    host.call("write", "/run/domain.xml", domain_xml)
    host.run("virsh", "define", "/run/domain.xml")


def small_guest(*, pins: Sequence[int | None] = (None,), mode: str = "") -> tuple[str, str]:
    """The uuid and the XML of a new domain, ``guest``, that boots the small guest.

    :param pins: the host node that each of its cells is pinned to; None: to none
    :param mode: what the small guest does after its report; see :mod:`tests.machine.guest`
    """
    owner, share = str(uuid.uuid4()), 256 // len(pins)
    cells = [f"<cell id='{cell}' memory='{share}' unit='MiB'{'' if cell else _CPU}/>" for cell in range(len(pins))]
    pinned = [
        f"<memnode cellid='{cell}' mode='strict' nodeset='{node}'/>"
        for cell, node in enumerate(pins)
        if node is not None
    ]
    tune = f"<numatune>{''.join(pinned)}</numatune>" if pinned else ""
    return owner, _DOMAIN.format(uuid=owner, cells="".join(cells), pins=tune, mode=mode)
