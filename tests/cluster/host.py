"""A host of the cluster: an overlay of the Debian tree, and namespaces of its own for all else."""

import pathlib
import socket
import subprocess
import tempfile
import time

from tests.cluster import settings
from tests.machine import commands

BRIDGE = "cluster"

#: The first process of a host. It ends when its standard input does, and the kernel ends all others with it. It waits
#: for orphans meanwhile: libvirtd wants to see them gone.
_INIT = r"""
set -e
root=$1 name=$2
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for node in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
    IFS=: read -r path major minor <<END
$node
END
    mknod -m 666 "$root/dev/$path" c "$major" "$minor"
done
ln -s /proc/self/fd "$root/dev/fd"
for number in 0:stdin 1:stdout 2:stderr; do ln -s "fd/${number%:*}" "$root/dev/${number#*:}"; done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
for directory in dev/shm run tmp; do mount -t tmpfs -o mode=1777 tmpfs "$root/$directory"; done
chmod 755 "$root/run"
mkdir -m 1777 "$root/run/lock"
hostname "$name"
cd "$root"
pivot_root . mnt
cd /
exec /bin/sh -c '
set -e
umount -l /mnt
ip link set lo up
cat > /dev/null <&3 &
echo ready
exec > /dev/null
wait
' 3<&0
"""


class Host:
    """One host, on or off. Its files last until the run ends, also while it is off.

    :ivar root: its root directory, as this process sees it; /srv in it is no overlay
    :ivar files: what it has written
    """

    def __init__(self, name: str, layers: list[pathlib.Path], work: pathlib.Path) -> None:
        """Make its root directory below `work`, which is on a tmpfs: `layers` are below it, the first is on top."""
        self.name = name
        self.address = settings.HOSTS[name]
        self._init: subprocess.Popen[str] | None = None
        home = work / name
        for part in ("files", "work", "root"):
            (home / part).mkdir(parents=True)
        self.root = home / "root"
        self.files = home / "files"
        lower = ":".join(str(layer) for layer in layers)
        options = f"lowerdir={lower},upperdir={self.files},workdir={home / 'work'}"
        commands.run("mount", "-t", "overlay", "-o", options, "overlay", self.root)
        commands.run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", self.root / "srv")
        self.write("/etc/hosts", settings.ETC_HOSTS)

    def power_on(self) -> None:
        """Start it with no process but the first, and connect it to the network.

        :raises RuntimeError: it does not start
        """
        kinds = ("--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child")
        words = ["unshare", *kinds, "sh", "-c", _INIT, "sh", str(self.root), self.name]
        self._init = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self._init.stdout.readline() != "ready\n":
            raise RuntimeError(f"{self.name} does not start")
        self._pid = child(self._init.pid)
        peer = ("type", "veth", "peer", "name", "eth0", "netns", self._pid)
        commands.run("ip", "link", "add", "name", self.name, *peer)
        commands.run("ip", "link", "set", self.name, "master", BRIDGE, "up")
        self.run("ip", "address", "add", f"{self.address}/24", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")

    def power_off(self) -> None:
        """Pull the plug: every process of it ends at once. What it wrote stays."""
        if self._init is not None:
            self._init.stdin.close()
            self._init.wait()
            self._init.stdout.close()
            self._init = None
            subprocess.run(["ip", "link", "delete", self.name], check=False, stderr=subprocess.DEVNULL)

    def enter(self, *words: object, user: str = "root") -> list[str]:
        """The command line that runs a program of the host in it."""
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        switched = () if user == "root" else ("runuser", "-u", user, "--")
        inside = ["env", "-i", path, "LC_ALL=C.UTF-8", *switched, *(str(word) for word in words)]
        return ["nsenter", "--target", str(self._pid), "--all", *inside]

    def run(self, *words: object, user: str = "root", given: str = "") -> str:
        """Run a program in it to its end; returns what it printed.

        :raises RuntimeError: it failed; what it said is in the message
        """
        with tempfile.TemporaryFile("w+") as said:
            done = subprocess.run(
                self.enter(*words, user=user), check=False, text=True, input=given, stdout=subprocess.PIPE, stderr=said
            )
            said.seek(0)
            if done.returncode:
                line = " ".join(str(word) for word in words)
                raise RuntimeError(f"{self.name}: {line}: exit code {done.returncode}\n{done.stdout}{said.read()}")
        return done.stdout

    def start(self, name: str, *words: object, user: str = "root") -> None:
        """Start a service; what it says is in /var/log/cluster/`name`."""
        script = 'mkdir -p /var/log/cluster && setsid "$@" >> "/var/log/cluster/$0" 2>&1 < /dev/null &'
        switched = () if user == "root" else ("runuser", "-u", user, "--")
        self.run("sh", "-c", script, name, *switched, *words)

    def wait_for_port(self, port: int, *, seconds: float = 120) -> None:
        """Wait until something listens on a port of it.

        :raises TimeoutError: nothing does; the end of what its services said is in the message
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                socket.create_connection((self.address, port), timeout=5).close()
                return
            except OSError as error:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{self.name}: nothing listens on port {port}\n{self.said()}") from error
            time.sleep(0.2)

    def said(self) -> str:
        """The end of what each service has said."""
        logs = sorted(self.root.glob("var/log/cluster/*"))
        return "\n".join(f"{log.name}: {log.read_text(errors='replace')[-1500:]}" for log in logs)

    def read(self, path: str) -> str:
        """What is in a file of it."""
        return (self.root / path.lstrip("/")).read_text()

    def write(self, path: str, text: str, *, owner: str = "root:root", mode: int = 0o644) -> None:
        """Write a file of it."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
        if owner != "root:root":
            self.run("chown", owner, path)


def child(pid: int) -> int:
    """The first child of that process, in the PID namespace of this one."""
    return int(pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def make_network() -> None:
    """Make the network of the hosts, in the network namespace of this process."""
    commands.run("ip", "link", "set", "lo", "up")
    commands.run("ip", "link", "add", "name", BRIDGE, "type", "bridge")
    commands.run("ip", "address", "add", f"{settings.NETWORK}.254/24", "dev", BRIDGE)
    commands.run("ip", "link", "set", BRIDGE, "up")
