"""A libvirt daemon of the run's own: system mode, QEMU driver, sockets and state in a directory.

A system libvirtd has fixed directories. So it gets a mount namespace, in which these are others; and a PID namespace,
with which every guest ends, however the run ends.
"""

import contextlib
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator

from tests.machine import commands

#: What makes a command one of root's.
ROOT = () if os.geteuid() == 0 else ("sudo", "--non-interactive")

#: How long libvirtd may take until it answers: it asks QEMU what it can do first.
_START_SECONDS = 60

#: The first process of the namespaces. Standard input ends with the run; then this ends, and the kernel ends the rest.
#: A directory that is not on the machine is not made there: its parent is replaced by links to all that is in it.
#: The QEMU driver wants its packaged user and group to be there, before it reads in qemu.conf that they are others. And
#: when it can open /dev/kvm and guests cannot, it asks QEMU anew at each call what it can do, which takes seconds.
_INIT = r"""
set -e
PATH=$PATH:/usr/sbin:/sbin
for directory in /etc /run /var/cache /var/lib /var/log; do
    if [ ! -d "$directory/libvirt" ]; then
        mkdir -p "$1/machine$directory"
        mount --rbind "$directory" "$1/machine$directory"
        mount -t tmpfs tmpfs "$directory"
        for entry in "$1/machine$directory"/*; do ln -s "$entry" "$directory"; done
        mkdir "$directory/libvirt"
    fi
    mkdir -p "$1$directory"
    mount --bind "$1$directory" "$directory/libvirt"
done
for table in passwd group; do
    cp "/etc/$table" "$1/$table"
    mount --bind "$1/$table" "/etc/$table"
done
echo "libvirt-qemu:x:$2:$3::/:/bin/false" >> /etc/passwd
printf 'libvirt-qemu:x:%s:\nkvm:x:%s:\n' "$3" "$3" >> /etc/group
if [ -e /dev/kvm ]; then
    mkdir "$1/dev"
    mount -t tmpfs tmpfs "$1/dev"
    cp -a /dev/kvm "$1/dev"
    chmod 666 "$1/dev/kvm"
    mount --bind "$1/dev/kvm" /dev/kvm
fi
libvirtd --pid-file "$1/libvirtd.pid" &
cat > /dev/null
"""

_LIBVIRTD_CONF = """\
host_uuid = "{uuid}"
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_ro_perms = "0777"
unix_sock_rw_perms = "0777"
"""

#: Guests run as whoever runs the tests; without virtlogd, which keeps logs as root. Files keep their owner: with
#: dynamic_ownership, libvirt's default, a namespace that is a file belongs to the guest's user while it runs.
_QEMU_CONF = """\
user = "+{user}"
group = "+{group}"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
"""


@contextlib.contextmanager
def running(hook: str | None = None) -> Iterator[str]:
    """Start it, and stop it with all its guests; its URI, for any client on the machine.

    :param hook: a script that it asks before it starts a guest
    :raises RuntimeError: a program is missing, or it does not answer; what it said is in the message
    """
    if missing := [name for name in ("libvirtd", "qemu-system-x86_64") if not _program(name)]:
        raise RuntimeError(f"not installed: {', '.join(missing)}. bindep.txt says what to install")
    work = pathlib.Path(tempfile.mkdtemp(prefix="vpmem-libvirt-"))
    try:
        work.chmod(0o755)  # the guests' user looks for its monitor in there
        _write(work / "etc/libvirtd.conf", _LIBVIRTD_CONF.format(uuid=uuid.uuid4()))
        _write(work / "etc/qemu.conf", _QEMU_CONF.format(user=os.getuid(), group=os.getgid()))
        if hook is not None:
            _write(work / "etc/hooks/qemu.d/vpmem", hook)
            (work / "etc/hooks/qemu.d/vpmem").chmod(0o755)
        namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        with (work / "said").open("wb") as said:
            process = subprocess.Popen(
                [*ROOT, *namespaces, "sh", "-c", _INIT, "sh", str(work), str(os.getuid()), str(os.getgid())],
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=said,
                start_new_session=True,  # Ctrl-C is for the run, which then stops it
            )
        uri = f"qemu:///system?socket={work}/run/libvirt-sock"
        try:
            _wait(uri, process, work / "said")
            yield uri
        finally:
            process.stdin.close()
            process.wait(timeout=_START_SECONDS)
    finally:
        # Outside of the namespace, so that none of its mounts is in there.
        commands.run(*ROOT, "rm", "-rf", "--one-file-system", work)


def pid_of_guest(domain_uuid: str) -> int | None:
    """The QEMU process of a domain, as this process sees it; None when there is none."""
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if b"-uuid" in words and words[words.index(b"-uuid") + 1] == domain_uuid.encode():
                return int(path.parent.name)
    return None


def _program(name: str) -> str | None:
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def _write(path: pathlib.Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _wait(uri: str, process: subprocess.Popen, said: pathlib.Path) -> None:
    import libvirt  # not there where only an initramfs is built

    libvirt.registerErrorHandler(lambda _context, _error: None, None)  # it would print each to stderr
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            libvirt.open(uri).close()
            return
        except libvirt.libvirtError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"libvirtd does not answer: {error}\n{said.read_text()}") from error
        time.sleep(0.05)
