"""Machines for the tests: Debian's kernel, initramfs images, libvirt daemons and guests of the run's own."""
