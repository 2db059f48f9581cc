"""A compute host: libvirtd, sshd and persistent memory of its own, and nova-compute with this project's driver."""

import uuid

from tests.cluster import settings
from tests.cluster.host import Host
from tests.cluster.settings import COMPUTES, ini

MIB = 1 << 20

#: The namespaces of each compute host: files in MEMORY, by label.
MEMORY = "/srv/pmem"
NAMESPACES = {"LARGE": ("large0", "large1"), "SMALL": ("small0", "small1", "small2"), "DISK": ("disk0",)}
SIZES = {"LARGE": 32 * MIB, "SMALL": 16 * MIB, "DISK": 8 * MIB}

#: Values of ``compute_driver``.
OURS, IN_TREE = "vpmem.VPMEMLibvirtDriver", "libvirt.LibvirtDriver"

KEY = "/var/lib/nova/.ssh/id_ed25519"

_VPMEM = {
    "libvirt": {"pmem_namespaces": ",".join(f"{label}:{'|'.join(names)}" for label, names in NAMESPACES.items())},
    # A virtio-pmem, the default of files here and what DISK has, cannot be migrated live.
    "vpmem": {"discovery": "directory", "directory": MEMORY, "device_model": "LARGE:nvdimm,SMALL:nvdimm"},
}

#: The user nova may not open the files.
_AS_ROOT = {
    "wipe_command": "sudo nova-rootwrap /etc/nova/rootwrap.conf vpmem-wipe",
    "copy_command": "sudo nova-rootwrap /etc/nova/rootwrap.conf vpmem-copy",
}

_QEMU_CONF = 'security_driver = "none"\ncgroup_controllers = []\n'

_SSH_CONFIG = f"""\
Host {" ".join(COMPUTES)} {settings.NETWORK}.*
    User nova
    IdentityFile {KEY}
    BatchMode yes
    StrictHostKeyChecking yes
"""


def _nova(host: Host, driver: str, vpmem: dict[str, object]) -> str:
    own: settings.Ini = {
        "DEFAULT": {
            "compute_driver": driver,
            "my_ip": host.address,
            "use_cow_images": "false",  # a migration would make disks qcow2, against images_type
            "update_resources_interval": 10,
            "running_deleted_instance_poll_interval": 10,
        },
        "libvirt": {
            "virt_type": "qemu",
            "cpu_mode": "none",
            "images_type": "raw",
            "live_migration_scheme": "ssh",
            "live_migration_inbound_addr": host.address,
        },
        "vnc": {"enabled": "false"},
    }
    return ini(settings.NOVA, own, _VPMEM, {"vpmem": {**_AS_ROOT, **vpmem}})


def set_up(host: Host) -> None:
    """Configure a host that is on, for the first time. Its namespaces have somebody's old data in them."""
    (host.root / MEMORY.lstrip("/")).mkdir()
    for label, names in NAMESPACES.items():
        for name in names:
            path = host.root / MEMORY.lstrip("/") / name
            with open("/dev/urandom", "rb") as random:
                path.write_bytes(random.read(SIZES[label]))
            path.chmod(0o600)
    host.write("/etc/vpmem/vpmem.conf", ini(_VPMEM))
    filters = settings.ROOT / "packaging/rootwrap.d/vpmem.filters"
    host.write("/etc/nova/rootwrap.d/vpmem.filters", filters.read_text())
    host.run("install", "-d", "-o", "nova", "-g", "nova", "-m", "700", "/var/lib/vpmem")
    libvirtd = f'host_uuid = "{uuid.uuid4()}"\nauth_unix_rw = "none"\n'
    host.write("/etc/libvirt/libvirtd.conf", libvirtd)
    host.write("/etc/libvirt/qemu.conf", _QEMU_CONF)
    host.run("sh", "-c", "rm /etc/ssh/ssh_host_*")  # the tree's, the same for all hosts
    host.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/etc/ssh/ssh_host_ed25519_key")


def exchange_keys(hosts: list[Host]) -> None:
    """Let nova, and root of one host as nova, log in to the others: by one key, and only where the host's is known."""
    first = hosts[0]
    first.run("install", "-d", "-o", "nova", "-g", "nova", "-m", "700", "/var/lib/nova/.ssh")
    first.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", KEY, user="nova")
    private, public = (first.read(path) for path in (KEY, f"{KEY}.pub"))
    known = [f"{host.name},{host.address} {host.read('/etc/ssh/ssh_host_ed25519_key.pub')}" for host in hosts]
    for host in hosts:
        host.run("install", "-d", "-o", "nova", "-g", "nova", "-m", "700", "/var/lib/nova/.ssh")
        host.write(KEY, private, owner="nova:nova", mode=0o600)
        host.write("/var/lib/nova/.ssh/authorized_keys", public, owner="nova:nova", mode=0o600)
        host.write("/etc/ssh/ssh_known_hosts", "".join(known))
        host.write("/etc/ssh/ssh_config.d/cluster.conf", _SSH_CONFIG)


def start(host: Host) -> None:
    """Start the services of a host that is on, but nova-compute."""
    host.run("mkdir", "-p", "/run/sshd")
    host.run("/usr/sbin/sshd")
    host.run("virtlogd", "--daemon")
    host.run("libvirtd", "--daemon")


def start_nova(host: Host, driver: str = OURS, **vpmem: object) -> None:
    """Start nova-compute with that driver, and with more options of [vpmem]."""
    host.write("/etc/nova/nova.conf", _nova(host, driver, vpmem), owner="root:nova", mode=0o640)
    program = "vpmem-nova-compute" if driver == OURS else "nova-compute"
    host.start("nova-compute", program, "--config-file", "/etc/nova/nova.conf", user="nova")


def stop_nova(host: Host) -> None:
    """End nova-compute; guests run on."""
    running = "--euid nova --full nova-compute"
    host.run("timeout", "90", "sh", "-c", f"while pkill {running}; do sleep 1; done")
