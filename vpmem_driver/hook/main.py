"""``vpmem-libvirt-hook``: has libvirt start no domain on persistent memory that is not its own.

libvirt runs it as /etc/libvirt/hooks/qemu.d/vpmem with the domain's XML on standard input, and does not start the
domain when it fails (hooks.html, libvirt 6.5 and later). Device nodes may be numbered anew at boot, so that a path in
a definition leads to another's namespace; and any device of a domain may lead to one. It must not call libvirt back.
"""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Allow what libvirt is about to do (0), or say why not (1). Arguments: domain, operation, sub-operation."""
    _, domain, operation, *_ = [*(sys.argv if argv is None else argv), "", ""]
    if operation != "prepare":  # the one before each start, restored and migrated guests included
        return 0
    from vpmem_driver.hook import check  # noqa: PLC0415  libvirt also runs it when a domain ends

    reason = check.refusal(domain, sys.stdin.read())
    if reason is None:
        return 0
    print(f"vpmem: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
