"""A plain libvirt domain, as an operator would have it, that boots the small guest."""

import pathlib
import time
import typing
import uuid

import libvirt

from tests.machine import guest

_SHUTDOWN_SECONDS = 60

_DOMAIN = """\
<domain type='qemu'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>256</memory>
  <vcpu>{cells}</vcpu>
  <numatune>{pins}</numatune>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{boot.kernel}</kernel>
    <initrd>{boot.initramfs}</initrd>
    <cmdline>console=ttyS0 quiet {mode}</cmdline>
  </os>
  <features><acpi/></features>
  <cpu><numa>{numa}</numa></cpu>
  <on_reboot>destroy</on_reboot>
  <devices>
    <controller type='usb' model='none'/>
    <serial type='file'><source path='{log}'/></serial>
    <memballoon model='none'/>
  </devices>
</domain>
"""


class Boot(typing.NamedTuple):
    """Kernel and initramfs of the small guest."""

    kernel: pathlib.Path
    initramfs: pathlib.Path


class Guest:
    """A defined domain, each of whose cells is pinned to the host node of the same number."""

    def __init__(
        self, connection: libvirt.virConnect, boot: Boot, log: pathlib.Path, *, cells: int = 1, mode: str = ""
    ) -> None:
        """Define it.

        :param mode: what the small guest does after its report; see :mod:`tests.machine.guest`
        """
        self._connection = connection
        self._log = log
        log.touch()  # else libvirtd makes it, as root
        self.uuid = str(uuid.uuid4())
        self.name = f"vpmem-{self.uuid[:8]}"
        numa = [f"<cell id='{n}' cpus='{n}' memory='{256 // cells}' unit='MiB'/>" for n in range(cells)]
        pins = [f"<memnode cellid='{n}' mode='strict' nodeset='{n}'/>" for n in range(cells)]
        values = {"name": self.name, "uuid": self.uuid, "cells": cells, "log": log, "mode": mode}
        self.define(_DOMAIN.format(boot=boot, numa="".join(numa), pins="".join(pins), **values))

    def define(self, domain_xml: str) -> None:
        self.domain = self._connection.defineXMLFlags(domain_xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)

    def definition(self) -> str:
        return self.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)

    def unpin(self) -> None:
        """Take the pins out of the definition, as this machine may have one node. Its devices stay on their cells."""
        before, _, rest = self.definition().partition("<numatune>")
        self.define(before + rest.partition("</numatune>")[2])

    def start(self) -> None:
        self.domain.create()

    def report(self) -> guest.Report:
        """What it tells when it is ready; libvirt empties the log at each start."""
        report = guest.wait_for_report(self._log)
        assert report.uuid == self.uuid
        return report

    def plugged(self) -> list[guest.Device]:
        """What it tells of the devices that were added since it is ready."""
        return guest.plugged(self._log.read_text(errors="replace"))

    def shut_down(self) -> None:
        """Press its power button, and wait until it is off."""
        self.domain.shutdown()
        self.wait_until_off()

    def wait_until_off(self) -> None:
        deadline = time.monotonic() + _SHUTDOWN_SECONDS
        while self.domain.isActive():
            assert time.monotonic() < deadline, f"{self.name} is not off"
            time.sleep(0.05)

    def close(self) -> None:
        if self.domain.isActive():
            self.domain.destroy()
        self.domain.undefine()
