"""``vpmem-nova-compute``: nova-compute where Nova lives in another prefix, such as a distribution's package.

There the module ``nova/virt/vpmem`` of the wheel is not below Nova's own ``nova.virt``; here its place is added first.
"""

import pathlib
import sys

import vpmem_driver


def main() -> int:
    """Run nova-compute with ``vpmem.VPMEMLibvirtDriver`` to be found."""
    import nova.virt  # noqa: PLC0415  a missing Nova is an error of this program, not of an import of the package

    nova.virt.__path__.append(str(pathlib.Path(vpmem_driver.__file__).parent.parent / "nova" / "virt"))
    from nova.cmd import compute  # noqa: PLC0415

    return compute.main()


if __name__ == "__main__":
    sys.exit(main())
