"""``vpmem-nova-compute``: nova-compute where Nova lives in another prefix, such as a distribution's package.

There the module ``nova/virt/vpmem`` of the wheel is not below Nova's own ``nova.virt``.
"""

import sys

from vpmem_driver import exception
from vpmem_driver.nova import installation


def main() -> int:
    """Run nova-compute with ``vpmem.VPMEMLibvirtDriver`` to be found."""
    try:
        installation.let_nova_find_the_driver()
    except exception.InstallationError as error:
        print(f"vpmem-nova-compute: {error}", file=sys.stderr)
        return error.exit_code
    from nova.cmd import compute  # noqa: PLC0415  only now is it known to be there

    return compute.main()


if __name__ == "__main__":
    sys.exit(main())
