"""Faults that the checks of a host find."""

from vpmem_driver.faults.fault import Fault

NO_BUS = Fault(
    "VPMEM-C01",
    "the kernel has no persistent memory",
    "The kernel shows no NVDIMM bus or no dax devices: it found no NVDIMM, or a driver is not loaded.",
    "Check the firmware settings and the kernel log ('dmesg | grep -i nvdimm'). Load the drivers: 'modprobe nfit "
    "nd_pmem device_dax dax_pmem', for CXL also 'modprobe cxl_acpi cxl_pmem'.",
)
NOT_MAPPABLE = Fault(
    "VPMEM-C02",
    "a dax device cannot be mapped",
    "The device is bound to another driver than device_dax. With kmem the kernel uses it as system memory, with "
    "fsdev_dax a filesystem has it. No guest can get it, and it cannot be wiped.",
    "For kmem: 'daxctl reconfigure-device --mode=devdax DEVICE', after its memory is offline ('daxctl offline-memory "
    "DEVICE'). For fsdev_dax: unmount the filesystem, unbind the driver, and bind device_dax.",
)
DEVICE = Fault(
    "VPMEM-C03",
    "a device cannot be opened",
    "The device node of a namespace does not exist, or this user may not read and write it.",
    "As root, check the node with 'ls -l'. For a service that is not root, set [vpmem] wipe_command.",
)
PROGRAM = Fault(
    "VPMEM-C04",
    "a program is missing",
    "A program that the configuration needs is not installed, or does not run.",
    "Install its package: 'apt install ndctl daxctl' or 'dnf install ndctl daxctl'.",
)
LEDGER_STORAGE = Fault(
    "VPMEM-C05",
    "the ledger is on storage that is lost",
    "The filesystem of [vpmem] state_path does not last: a new container, or a reboot, loses the record of who owns "
    "which namespace. All namespaces are then unknown.",
    "Set [vpmem] state_path to a directory that lasts, such as a volume of the container: in Kolla, "
    "/var/lib/nova/vpmem.",
)
LEDGER_SPACE = Fault(
    "VPMEM-C06",
    "the filesystem of the ledger is full",
    "There is too little free space for the ledger. Claims and releases fail, and nothing else is lost.",
    "Free space on the filesystem of [vpmem] state_path.",
)
LEDGER_ACCESS = Fault(
    "VPMEM-C07",
    "another user can change the ledger",
    "The directory of the ledger may be written to by another user. vpmem refuses to use such a ledger.",
    "Check that no other user created the files in it, then run 'chmod 700' on it.",
)
LIBVIRT = Fault(
    "VPMEM-C08",
    "libvirt is absent or too old",
    "vpmem asks libvirt which domain uses a namespace, before a wipe and before a claim. The hook needs libvirt 6.5.",
    "Install and start libvirt, or set [vpmem] connection_uri. A host without domains needs none.",
)
QEMU = Fault(
    "VPMEM-C09",
    "QEMU cannot give persistent memory to a guest",
    "QEMU is missing, has no NVDIMM device, or was built without libpmem. Without libpmem it refuses <pmem/>, which "
    "vpmem writes for a device on persistent memory.",
    "Install a QEMU that was built with libpmem: 'qemu-system-x86_64 -object memory-backend-file,help' lists pmem.",
)
HOOK = Fault(
    "VPMEM-C10",
    "the libvirt hook is not installed",
    "Without the hook, a domain can start on the memory of another owner: after a reboot that renumbers the devices, "
    "or from an old definition.",
    "Install it as doc/operation.md, section The libvirt hook, says. A Nova compute host needs no hook.",
)
MEMORY_LOCK = Fault(
    "VPMEM-C11",
    "libvirt cannot raise the limit of locked memory",
    "The daemon has a small limit of locked memory and no right to raise it. A guest with locked memory or a "
    "passed-through PCI device locks all of its memory, persistent memory too, and does not start.",
    "Set LimitMEMLOCK=infinity in the unit of libvirtd or virtqemud, or start the container with CAP_SYS_RESOURCE.",
)
CONFINED = Fault(
    "VPMEM-C12",
    "AppArmor or SELinux may be in the way",
    "The daemon is confined, and its policy does not mention the hook. The kernel may refuse to run it; libvirt then "
    "starts no domain.",
    "Test it: 'virsh start' of any domain, then look for DENIED in the kernel log or in 'ausearch -m avc'. For "
    "AppArmor, add a line 'PATH PUx,' to /etc/apparmor.d/local/usr.sbin.libvirtd and reload the profile.",
)
PID_NAMESPACE = Fault(
    "VPMEM-C13",
    "QEMU's processes cannot be seen",
    "vpmem runs in another PID namespace than QEMU, as in a container without the host's. It cannot see which "
    "process has a namespace mapped, and relies on libvirt alone.",
    "Start the container with the PID namespace of the host (docker run --pid=host), or set [vpmem] connection_uri so "
    "that vpmem asks libvirt.",
)
NOVA = Fault(
    "VPMEM-C14",
    "Nova and this package do not fit together",
    "This Nova version is not tested with this release, Nova does not find the driver, or compute_driver names "
    "another one.",
    "doc/operation.md, section Nova, and the README describe the installation. Install the wheel into nova-compute's "
    "own environment, and set compute_driver = vpmem.VPMEMLibvirtDriver.",
)
WIPE_COMMAND = Fault(
    "VPMEM-C15",
    "the wipe command does not work",
    "rootwrap does not allow vpmem-wipe, or the program is not found. Namespaces stay dirty, and boots wait in vain.",
    "Copy packaging/rootwrap.d/vpmem.filters to a directory of filters_path in rootwrap.conf, and link vpmem-wipe "
    "into a directory of exec_dirs. Owner root, mode 644.",
)
WASTE = Fault(
    "VPMEM-C16",
    "a guest gets much less than the size of its namespace",
    "The label of the guest and the alignment of the namespace take more than 2 MiB and more than a hundredth of it.",
    "Create the namespace again with 'ndctl create-namespace --align 2M', which erases it; or set [vpmem] label_size = "
    "LABEL:0, for new claims.",
)
NUMA = Fault(
    "VPMEM-C17",
    "the NUMA node of a namespace is unknown",
    "The firmware does not say to which node the memory belongs, or the node does not exist. Guests may get memory "
    "far from their CPUs.",
    "Check the firmware settings (NUMA, SRAT). 'ndctl list -v' shows numa_node.",
)
MEDIA = Fault(
    "VPMEM-C18",
    "the medium has errors",
    "The kernel knows addresses of a region that cannot be read. A guest that reads them gets a memory error, and a "
    "wipe of the namespace may fail.",
    "'ndctl list --media-errors' and 'vpmem host check', as root, show the namespaces. Move guests away, then run "
    "'vpmem repair NAMESPACE'. Otherwise replace the module.",
)
CONFIGURATION = Fault(
    "VPMEM-C19",
    "no namespace can be given to a guest",
    "[libvirt] pmem_namespaces is empty, or none of its namespaces is usable.",
    "List labels and namespaces in pmem_namespaces; 'vpmem namespace list --all' shows what the host has.",
)
REGION = Fault(
    "VPMEM-C20",
    "a region of memory is disabled, or CXL memory has no region",
    "The kernel shows no namespaces of a disabled region, so that they are missing. Regions of CXL memory are gone "
    "after a boot if the firmware does not set them up.",
    "Enable the region ('ndctl enable-region', 'cxl enable-region'), or make the CXL region as before ('cxl "
    "create-region'): namespaces are recorded in the label storage area of the devices. Do so at each boot, before "
    "guests start.",
)
FLUSH = Fault(
    "VPMEM-C21",
    "a guest loses what it has flushed when the host loses power",
    "Its device is a nvdimm, and the namespace is a file on a filesystem without DAX. A flush of the guest stays in "
    "the page cache of the host.",
    "Use virtio-pmem ([vpmem] device_model), which needs libvirt 9.4, or a DAX filesystem. The owner keeps its nvdimm "
    "until it releases the namespace.",
)
LIBVIRT_SILENT = Fault(
    "VPMEM-C22",
    "libvirt did not answer in time",
    "libvirt or the host is busy, or the daemon hangs. The check of libvirt is incomplete; nothing else is known to be "
    "wrong.",
    "Run the check again when the host is less busy. If libvirt never answers ('virsh list' hangs too), look at the "
    "filesystems that domains use and restart the daemon: claims and wipes wait for it.",
)

FAULTS = (
    *(NO_BUS, NOT_MAPPABLE, DEVICE, PROGRAM, LEDGER_STORAGE, LEDGER_SPACE, LEDGER_ACCESS, LIBVIRT, QEMU, HOOK),
    *(MEMORY_LOCK, CONFINED, PID_NAMESPACE, NOVA, WIPE_COMMAND, WASTE, NUMA, MEDIA, CONFIGURATION, REGION),
    *(FLUSH, LIBVIRT_SILENT),
)
