"""Guests on QEMU, under a libvirtd of the run's own. Their namespaces are files of this machine."""
