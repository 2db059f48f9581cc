"""``vpmem-libvirt-hook``: refuses to start a domain on a namespace that another owner holds.

libvirt runs it as /etc/libvirt/hooks/qemu.d/vpmem with the domain's XML on standard input, and does not start the
domain if it fails (hooks.html, libvirt 6.5 and later). A reboot can renumber device nodes, so that a path in a
definition leads to another owner's namespace, and any device of a domain can lead to one. A hook must not call libvirt.
"""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0 to allow the operation, 1 to refuse it. Arguments: domain, operation, sub-operation."""
    _, domain, operation, *_ = [*(sys.argv if argv is None else argv), "", ""]
    if operation != "prepare":  # runs before each start, restore and incoming migration
        return 0
    from vpmem_driver.hook import check  # noqa: PLC0415  libvirt also runs the hook when a domain stops

    reason = check.refusal(domain, sys.stdin.read())
    if reason is None:
        return 0
    print(f"vpmem: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
