"""``vpmem-nova-compute``: nova-compute for a Nova that is installed in another prefix, such as a distribution package.

In that case the wheel's module ``nova/virt/vpmem`` is outside Nova's ``nova.virt``.
"""

import sys

from vpmem_driver import exception
from vpmem_driver.nova import installation


def main() -> int:
    """Run nova-compute with ``vpmem.VPMEMLibvirtDriver`` available."""
    try:
        installation.let_nova_find_the_driver()
    except exception.InstallationError as error:
        print(f"vpmem-nova-compute: {error}", file=sys.stderr)
        return error.exit_code
    from nova.cmd import compute  # noqa: PLC0415  Nova may be absent until here

    return compute.main()


if __name__ == "__main__":
    sys.exit(main())
