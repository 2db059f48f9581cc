"""Namespaces that need a person."""

from vpmem_driver.faults.fault import Fault

QUARANTINED = Fault(
    "VPMEM-N01",
    "a namespace is quarantined",
    "Its wipe failed: a byte did not stay zero, or the medium reported an error. No owner can get the namespace. "
    "Placement counts it as reserved.",
    "Look at the reason in 'vpmem namespace show NAME', the kernel log and 'ndctl list --media-errors'. If the "
    "medium is good again, run 'vpmem quarantine retry NAME': the namespace is clean if every byte then stays zero. "
    "Otherwise replace the module, and remove the namespace from [libvirt] pmem_namespaces.",
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

FAULTS = (QUARANTINED, MISSING, UNUSABLE, NOT_WIPED, UNFINISHED, COPY_STOPPED)
