"""What vpmem relies on of a libvirt, in one set of cases, and what a libvirt gives the cases.

Run over libvirt's test driver (tests/functional), over libvirtd with QEMU (tests/integration), and over Nova's
fakelibvirt (tests/novatests). A runner says what its libvirt does otherwise: that is then tested against QEMU.
"""
