"""Options. They are registered on the ConfigOpts that is handed in and read when a pool or a driver is made."""

import os

from oslo_config import cfg, types

from vpmem_driver import exception

#: As nova/conf/libvirt.py declares it (Nova 31-34), so that both may register it on one ConfigOpts.
PMEM_NAMESPACES = cfg.ListOpt(
    "pmem_namespaces",
    item_type=types.String(),
    default=[],
    sample_default=["4GB:ns0|ns1", "SMALL:ns2"],
    help="""
Which namespaces guests may be given, by label:
``$LABEL:$NAMESPACE[|$NAMESPACE][,$LABEL:$NAMESPACE[|$NAMESPACE]]``.

* ``$NAMESPACE`` is the name of a namespace of this host, or its uuid where two namespaces have one name.
* ``$LABEL`` is what a flavor asks for (``hw:pmem=4GB,SMALL``). Labels are told apart by their resource class,
  ``CUSTOM_PMEM_NAMESPACE_$LABEL`` in upper case with every other character as an underscore.
""",
)

VPMEM_OPTS = [
    cfg.StrOpt(
        "discovery",
        default="ndctl",
        choices=[
            ("ndctl", "ask the ndctl program (needs root)"),
            ("sysfs", "read /sys/bus/nd and /sys/bus/dax; needs neither ndctl nor root"),
            ("directory", "preallocated files below the directory of the option 'directory', one namespace each"),
        ],
        help="Where this host's namespaces come from.",
    ),
    cfg.StrOpt(
        "directory",
        help="""
The directory of ``discovery = directory``, best on a DAX filesystem. A file's name is the namespace's name.
Files directly in it have no NUMA node; those in its subdirectories ``node0``, ``node1``, … have that one.
""",
    ),
    cfg.StrOpt(
        "state_path",
        default="/var/lib/vpmem",
        regex="^/",  # a relative one would be another ledger for each working directory
        help="Directory of the ledger, an absolute path. It is made, private to its owner, when it is not there.",
    ),
    cfg.StrOpt(
        "connection_uri",
        help="""
The libvirt whose running domains are asked before a namespace is wiped. Unset, it is ``qemu:///system`` if the
socket of a libvirt daemon is there. When it is set and does not answer, nothing is wiped. Processes that map the
namespace are looked for in any case.
""",
    ),
    cfg.StrOpt(
        "wipe_command",
        help="""
What to start for each wipe when this user may not open the devices, for example
``sudo nova-rootwrap /etc/nova/rootwrap.conf vpmem-wipe``. It takes no arguments, and looks namespaces up where
/etc/vpmem/vpmem.conf says, in a directory that only root may write to. Unset, the wipe runs as the user who asks for
it.
""",
    ),
    cfg.IntOpt("wipe_parallel", default=2, min=1, max=64, help="How many namespaces are wiped at a time."),
    cfg.IntOpt(
        "wipe_threads", default=0, min=0, max=256, help="Threads for each namespace that is wiped; 0: up to 4, by CPUs."
    ),
    cfg.IntOpt(
        "wipe_rate",
        default=0,
        min=0,
        help="Most MiB per second that the wipe of one namespace writes, and then reads; 0: no limit.",
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register all options on `conf`, leaving alone what is there already (Nova's own pmem_namespaces)."""
    if "libvirt" not in conf or PMEM_NAMESPACES.dest not in conf.libvirt:
        conf.register_opt(PMEM_NAMESPACES, group="libvirt")
    conf.register_opts(VPMEM_OPTS, group="vpmem")


def read_file_only(path: str, *, required: bool = False) -> cfg.ConfigOpts:
    """The options of one file: for what root runs for others, whose environment and home directory must not count.

    :param required: the file must be there; without it, all options have their defaults when it is not
    :raises InvalidConfigFile: the file cannot be read, or it is required and not there
    """
    options = cfg.ConfigOpts()
    register_opts(options)
    files = [path] if required or os.path.lexists(path) else []
    try:
        options([], project="vpmem", default_config_files=files, default_config_dirs=[], use_env=False)
    except cfg.ConfigFileParseError as error:
        # Its text repeats the line, which is not for everybody who has this read.
        raise exception.InvalidConfigFile(reason=f"{error.config_file} cannot be parsed") from None
    except (cfg.Error, OSError, UnicodeDecodeError) as error:
        raise exception.InvalidConfigFile(reason=error) from error
    return options


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """All options by group, for oslo-config-generator."""
    return [("libvirt", [PMEM_NAMESPACES]), ("vpmem", VPMEM_OPTS)]
