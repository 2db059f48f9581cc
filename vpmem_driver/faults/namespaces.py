"""Namespaces that need a person."""

from vpmem_driver.faults.fault import Fault

QUARANTINED = Fault(
    "VPMEM-N01",
    "a namespace is quarantined",
    "Its wipe failed: a byte did not stay zero, or the medium reported an error. No owner can get the namespace. "
    "Placement counts it as reserved.",
    "Look at the reason in 'vpmem namespace show NAME', the kernel log and 'ndctl list --media-errors'. 'vpmem repair "
    "NAME' clears bad addresses first. If the medium is good again, run 'vpmem quarantine retry NAME': the namespace "
    "is clean if every byte then stays zero. Otherwise replace the module, and remove the namespace from [libvirt] "
    "pmem_namespaces.",
)
MISSING = Fault(
    "VPMEM-N02",
    "a namespace is missing",
    "The ledger has the namespace, and it is not usable on this host now: its device is gone, disabled, or has another "
    "mode. Its state and its owner are kept, and its guest cannot start.",
    "'vpmem namespace show NAME' shows the reason. Bring the device back: 'ndctl list --idle' shows disabled "
    "namespaces, 'ndctl enable-namespace' and 'daxctl enable-device' enable them. With discovery = directory, mount "
    "the filesystem.",
)
UNUSABLE = Fault(
    "VPMEM-N03",
    "a configured namespace is unusable",
    "[libvirt] pmem_namespaces names a namespace that cannot be given to a guest, for example because of its mode or "
    "because it has no name. Nova skips it at its start; the command line refuses the configuration.",
    "Fix what 'vpmem namespace list --all' shows as its reason, or remove it from pmem_namespaces.",
)
NOT_WIPED = Fault(
    "VPMEM-N04",
    "a dirty namespace cannot be wiped",
    "The last wipe of the namespace was refused or ended early, usually because a domain or a process uses it. No "
    "owner gets it before it is wiped.",
    "'vpmem namespace show NAME' shows the reason. Stop the domain or process that it names, then run 'vpmem wipe'.",
)
UNFINISHED = Fault(
    "VPMEM-N05",
    "a claim is not complete and nothing works on it",
    "A claim has reserved the namespace, and no wipe of the claim makes progress. The process that claimed has "
    "probably ended. No other owner can get the namespace.",
    "Run 'vpmem wipe' to complete the claim, or 'vpmem release OWNER' to cancel it.",
)
COPY_STOPPED = Fault(
    "VPMEM-N06",
    "a copy is not complete and nothing works on it",
    "A copy of the namespace has begun and makes no progress. The source has all of the content, and no guest gets a "
    "part of it at the destination.",
    "Start the move again: it resumes. Or cancel it; 'vpmem namespace show NAME' shows how far it is.",
)

NOT_ADOPTED = Fault(
    "VPMEM-N07",
    "a domain has a namespace that the ledger does not hold for it",
    "A domain has the namespace, running or in its definition, and the ledger records no owner. The content is "
    "probably the domain's: the ledger was lost or restored, or the domain is older than the ledger.",
    "'vpmem reconcile' shows whether the content can only be the domain's, and with --yes adopts it then. Otherwise "
    "find out whose content it is. To keep it for the domain, run 'vpmem adopt'. If the domain must not have the "
    "namespace, remove the device from its definition ('virsh edit').",
)
FOREIGN = Fault(
    "VPMEM-N08",
    "a domain has a namespace that belongs to another owner",
    "A domain has the namespace, running or in its definition, and the ledger records another owner. The hook does not "
    "let the domain start. If it runs already, two guests may have changed the same bytes. vpmem changes nothing, "
    "because the content may be of either.",
    "Shut the domain down if it runs, and remove the device from its definition ('virsh edit'). Or release the "
    "namespace from its owner, if the owner does not need it.",
)
NO_DOMAIN = Fault(
    "VPMEM-N09",
    "no domain has a claimed namespace",
    "The ledger holds the namespace for an owner, and no domain on this host has it. The owner may have been deleted "
    "by another program, may be a Nova instance between two states, or may not be defined yet. The content is kept.",
    "Find out whether the owner exists ('virsh list --all', 'openstack server show OWNER'). If it does, define its "
    "domain with the namespace: 'vpmem domain xml' prints the device. If it does not exist any more, and nobody "
    "needs the content, run 'vpmem release OWNER --force --reason TEXT'.",
)
OUTDATED = Fault(
    "VPMEM-N10",
    "a definition has an outdated device path",
    "The definition of a domain has a path that leads to another namespace, or nowhere: the kernel has renumbered its "
    "devices. The hook does not let the domain start.",
    "Run 'vpmem domain refresh', or 'vpmem reconcile --yes'.",
)
SHARED = Fault(
    "VPMEM-N11",
    "several domains have the same unowned namespace",
    "More than one domain has the namespace, running or in its definition, and the ledger records no owner. The "
    "content can be of one of them only. vpmem changes nothing.",
    "Find out whose content it is, for example from backups of the definitions. Remove the device from the other "
    "definitions ('virsh edit'), then run 'vpmem adopt' for the right one.",
)
USED_BY_PROCESS = Fault(
    "VPMEM-N12",
    "a process uses an unowned namespace",
    "A process has the namespace mapped, no domain has it, and the ledger records no owner. It is not wiped and not "
    "given to an owner while the process uses it.",
    "Find out what the process is. If it is a guest that libvirt does not know, run 'vpmem adopt' with a uuid for it.",
)
BAD_MEDIA = Fault(
    "VPMEM-N13",
    "a namespace has bad media",
    "The kernel knows addresses of the namespace that cannot be read. A guest that reads them gets a memory error. A "
    "claim does not hand the namespace out, and quarantines it. If an owner holds it, nothing is done.",
    "If an owner holds it, save its content, for example with 'vpmem domain snapshot', and release it. Then 'vpmem "
    "repair NAME' clears the addresses, wipes the namespace and looks again. If that fails, replace the module.",
)
NOVA_DISAGREES = Fault(
    "VPMEM-N14",
    "ledger, Nova and Placement disagree",
    "Nova records a namespace for another instance than its owner, or Placement has allocated another number of "
    "namespaces. An instance that is being built, moves or has another task is not compared.",
    "Look at the instance ('openstack server show'). nova-compute compares its records with the ledger when it starts, "
    "and releases what an interrupted move has left, so look at its log first. 'openstack resource provider allocation "
    "show' and 'nova-manage placement audit' show allocations. Release nothing that Nova or Placement still has.",
)

FAULTS = (
    *(QUARANTINED, MISSING, UNUSABLE, NOT_WIPED, UNFINISHED, COPY_STOPPED, NOT_ADOPTED, FOREIGN, NO_DOMAIN, OUTDATED),
    *(SHARED, USED_BY_PROCESS, BAD_MEDIA, NOVA_DISAGREES),
)
