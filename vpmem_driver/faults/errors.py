"""The errors of the package, in the order of their ids."""

from vpmem_driver.faults.fault import Fault

FAULTS = (
    Fault(
        "VPMEM-E01",
        "an entry of [libvirt] pmem_namespaces is wrong",
        "The entry has the wrong form, or it names a namespace that this host does not have, that is unusable, that "
        "two namespaces could be, or that another entry has too. Nothing was changed.",
        "Correct the entry that the message shows: LABEL:NAME|NAME,LABEL:NAME. Write the uuid of a namespace if two "
        "have the same name. With 'pmem_namespaces =' empty, 'vpmem namespace list --all' lists what the host has.",
    ),
    Fault(
        "VPMEM-E02",
        "an option is wrong",
        "An option of the configuration has a value that cannot be used, alone or together with another option. "
        "Nothing was changed.",
        "Correct the option that the message names. doc/operation.md, section Options, describes all options.",
    ),
    Fault(
        "VPMEM-E03",
        "a configuration file cannot be read",
        "The file does not exist, this user may not read it, or a line in it has the wrong form. vpmem does not repeat "
        "the line, because nova.conf contains passwords.",
        "Check the path and the permissions of the file, and the line that the message names.",
    ),
    Fault(
        "VPMEM-E04",
        "an argument is wrong",
        "An argument of the command is malformed, or does not exist on this host: an owner, a label, a NUMA node, a "
        "domain, a column. Nothing was changed.",
        "Correct the argument that the message names. An owner is a uuid ('virsh domuuid DOMAIN').",
    ),
    Fault(
        "VPMEM-E05",
        "domain XML cannot be used",
        "The text is not the XML of a domain, or the domain cannot have persistent memory, for example because it "
        "has no guest NUMA cells. Nothing was changed.",
        "Use the output of 'virsh dumpxml', and add what the message names to the domain ('virsh edit').",
    ),
    Fault(
        "VPMEM-E06",
        "a namespace does not exist",
        "Neither this host nor its ledger has a namespace with that name or uuid. Nothing was changed.",
        "'vpmem namespace list --all' lists the namespaces of this host.",
    ),
    Fault(
        "VPMEM-E07",
        "too few namespaces are free",
        "Fewer namespaces of a label are free than the claim asks for. Nothing was claimed.",
        "'vpmem namespace list --by label' shows who has them. Release some, wipe quarantined ones, or add "
        "namespaces to [libvirt] pmem_namespaces.",
    ),
    Fault(
        "VPMEM-E08",
        "the owner does not hold the namespace",
        "The ledger does not hold the namespace for that owner. vpmem never acts on a name alone. Nothing was changed.",
        "'vpmem namespace list --by owner' shows who holds what.",
    ),
    Fault(
        "VPMEM-E09",
        "the namespace is claimed",
        "An owner has the namespace, and only its owner changes its bytes. Nothing was changed.",
        "If the owner no longer needs its content, release the namespace with 'vpmem release OWNER' or delete the "
        "server.",
    ),
    Fault(
        "VPMEM-E10",
        "the namespace is not free",
        "The namespace cannot be given to that owner: another owner has or reserves it, or it is quarantined or clean "
        "where its content is wanted. Nothing was claimed.",
        "The message says which. 'vpmem namespace show NAME' shows its state.",
    ),
    Fault(
        "VPMEM-E11",
        "the namespace is in use",
        "A running domain or a process has the namespace mapped or open. Nothing was overwritten, unless that began "
        "while the namespace was being wiped or copied.",
        "Stop the domain or the process that the message names, then run the command again.",
    ),
    Fault(
        "VPMEM-E12",
        "the namespace is reserved, or a copy of it is not complete",
        "A claim has reserved the namespace and waits for its wipes, or a copy fills or reads it. Until that is "
        "complete, no domain starts on the namespace.",
        "'vpmem namespace list' shows the progress. If no process works on it, 'vpmem wipe' completes a claim, the "
        "same move resumes a copy, and 'vpmem release OWNER' gives the namespace up.",
    ),
    Fault(
        "VPMEM-E13",
        "the domain cannot be changed or started",
        "The domain has a path to memory that it does not hold, or is in a state in which its devices cannot change.",
        "The message says what to do. doc/operation.md, section The libvirt hook, has a table of the messages of the "
        "hook.",
    ),
    Fault(
        "VPMEM-E14",
        "the namespaces cannot be listed",
        "The configured discovery failed, or found no usable namespace although the ledger has some. Nothing was "
        "changed, claimed or wiped.",
        "'vpmem host check' looks at kernel, devices and programs. As root, run 'ndctl list -N --idle -v' by hand. "
        "[vpmem] discovery = sysfs needs neither ndctl nor root.",
    ),
    Fault(
        "VPMEM-E15",
        "the ledger cannot be used",
        "The ledger cannot be read or written: permissions, a full or read-only filesystem, or a process that holds "
        "its lock. Nothing was changed, claimed or wiped.",
        "The message names the cause and the remedy. doc/operation.md, section When the ledger is unusable.",
    ),
    Fault(
        "VPMEM-E16",
        "the ledger is damaged",
        "The file is not a ledger, or a check of its pages, constraints or history failed. Nothing was changed, "
        "claimed or wiped.",
        "Make a copy of all files in [vpmem] state_path. With a backup, run 'vpmem ledger restore'. Without one, "
        "follow doc/operation.md, section When the ledger is unusable: with a new ledger, adopt the namespaces of "
        "every guest before the next claim.",
    ),
    Fault(
        "VPMEM-E17",
        "a newer vpmem_driver wrote the ledger",
        "This release does not know the version of the ledger. Nothing was changed.",
        "Install the newer release again. A ledger is never converted back.",
    ),
    Fault(
        "VPMEM-E18",
        "the namespace is not on this host now",
        "The ledger has the namespace, and discovery does not find it. Its record is kept.",
        "Bring the device back: 'ndctl list --idle' shows disabled namespaces.",
    ),
    Fault(
        "VPMEM-E19",
        "a device, a program or /proc failed",
        "A step on this host failed: opening a device, starting a program, looking at processes. No owner gets a "
        "namespace that is not wiped.",
        "The message names step, cause and remedy. A wipe that was stopped resumes with 'vpmem wipe'.",
    ),
    Fault(
        "VPMEM-E20",
        "libvirt does not answer or reports an error",
        "vpmem must ask libvirt whether a domain uses a namespace, or must change a definition, and could not. Nothing "
        "was wiped.",
        "Check the daemon with 'virsh -c URI list --all'. [vpmem] connection_uri selects another libvirt.",
    ),
    Fault(
        "VPMEM-E21",
        "a part of the installation is missing",
        "An optional Python package is not installed, or this package and Nova do not find each other: Nova is not "
        "installed for the Python that runs this package, or the package was not installed from its wheel.",
        "The message names what is missing. For Nova, install the wheel into nova-compute's environment, or start "
        "'vpmem-nova-compute' from an environment that was made with --system-site-packages.",
    ),
    Fault(
        "VPMEM-E22",
        "a wipe failed",
        "The medium failed while it was wiped, and the namespace is quarantined: no owner can get it.",
        "Check the medium ('ndctl list --media-errors', kernel log), then run 'vpmem quarantine retry NAME'.",
    ),
    Fault(
        "VPMEM-E23",
        "a copy failed",
        "The content of a namespace was not copied completely. The source still has all of it, and no guest gets a "
        "part of it at the destination.",
        "Fix what the message names, then start the copy again: it resumes where it can.",
    ),
    Fault(
        "VPMEM-E24",
        "the content does not fit into the namespace",
        "The namespace that should receive a copy gives a guest fewer bytes than the source. Nothing was changed.",
        "Choose a namespace of at least that size, or of another alignment. 'vpmem namespace list --by label' shows "
        "what the host has.",
    ),
    Fault(
        "VPMEM-E25",
        "the other host does not accept a copy",
        "The destination refused to receive the content: it has no free namespace that fits, or it refuses this host. "
        "The source keeps all of it.",
        "The message repeats what the destination said. Fix it there, then start the copy again.",
    ),
    Fault(
        "VPMEM-E26",
        "the host is not as the plan saw it",
        "A region or a namespace that 'vpmem provision' found is not in the plan, or differs from it. What was cut "
        "before that stays, and nothing else was changed.",
        "The message names the difference. 'ndctl list --regions --namespaces --idle' shows the host. Make a new plan "
        "with 'vpmem plan', or remove the difference and run 'vpmem provision' again: it does the rest.",
    ),
    Fault(
        "VPMEM-E27",
        "the host is retired",
        "'vpmem host retire' has wiped all namespaces of this host, so that its hardware can leave the house. Nothing "
        "can be claimed, and no copy is received. Nothing was changed.",
        "To put the host into service again, run 'vpmem host retire --cancel'. On a compute host, disable the compute "
        "service so that no server is scheduled to it.",
    ),
    Fault(
        "VPMEM-E28",
        "it is unknown whether the host has restarted",
        "Volatile memory loses its content when the host restarts. The kernel's boot_id differs from boot to boot, but "
        "it cannot be read, or a container shows an id of its own. Nothing was changed.",
        "Make /proc/sys/kernel/random/boot_id of the host readable. In a container, remove the mount at that path.",
    ),
)
