"""A small initramfs: busybox, the kernel modules that are named, and one script as /init."""

import gzip
import pathlib
import shutil
import subprocess
import tempfile

from tests.machine import commands, kernel

#: Before the script: the pseudo filesystems, and the modules in their order.
_PREAMBLE = """\
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in $(cat /lib/modules/order); do insmod "/lib/modules/$module" || echo "insmod $module failed"; done
"""


def build(
    target: pathlib.Path, of: kernel.Kernel, modules: list[str], script: str, busybox: pathlib.Path | None = None
) -> pathlib.Path:
    """Write an initramfs for kernel `of` to `target`: `modules` are loaded with what they need, then `script` runs."""
    with tempfile.TemporaryDirectory() as name:
        root = pathlib.Path(name)
        for directory in ("bin", "proc", "sys", "dev", "mnt", "lib/modules"):
            (root / directory).mkdir(parents=True)
        program = busybox or pathlib.Path(shutil.which("busybox") or "/bin/busybox")
        shutil.copy(program, root / "bin/busybox")
        for applet in commands.run(program, "--list").split():
            if applet != "busybox":
                (root / "bin" / applet).symlink_to("busybox")
        order = []
        for path in of.load_order(modules):
            plain = path.name.partition(".ko")[0] + ".ko"
            (root / "lib/modules" / plain).write_bytes(kernel.module_bytes(path))
            order.append(plain)
        (root / "lib/modules/order").write_text("".join(f"{line}\n" for line in order))
        init = root / "init"
        init.write_text(_PREAMBLE + script)
        init.chmod(0o755)
        files = "\n".join(["."] + [str(path.relative_to(root)) for path in sorted(root.rglob("*"))])
        archive = subprocess.run(
            ["busybox", "cpio", "-o", "-H", "newc"],
            cwd=root,
            input=files.encode(),
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ).stdout
    target.write_bytes(gzip.compress(archive, 1))
    return target
