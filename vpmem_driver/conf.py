"""Configuration options. They are registered on a given ConfigOpts, and read when a pool or a driver is created."""

import os
import shlex
import typing
from collections.abc import Iterable

from oslo_config import cfg, types

from vpmem_driver import exception

#: The configuration that root's programs read: the worker that runs as root, and the libvirt hook. It belongs to root;
#: no environment variable and nothing below a home directory changes what it says.
CONFIG_FILE = "/etc/vpmem/vpmem.conf"


class _Text(types.String):
    """A printable string: a path, a URI or a program's argument."""

    def __call__(self, value: object) -> str:
        text = str(super().__call__(value))
        if not text.isprintable():
            raise ValueError("it contains unprintable characters")
        return text


class _AbsolutePath(_Text):
    """An absolute path, which does not depend on the working directory."""

    def __call__(self, value: object) -> str:
        path = super().__call__(value)
        if not os.path.isabs(path):
            raise ValueError(f"'{exception.shorten(path)}' is not an absolute path")
        return path


class _Command(_Text):
    """A program and its arguments, quoted as for a shell."""

    def __call__(self, value: object) -> str:
        command = super().__call__(value)
        shlex.split(command)  # ValueError: unclosed quote
        return command


class _Number(types.Integer):
    """An integer. oslo.config's own type returns None for an empty value."""

    def __call__(self, value: object) -> int:
        number = super().__call__(value)
        if number is None:
            raise ValueError("a number is missing")
        return int(number)


#: Declared as in nova/conf/libvirt.py (Nova 31-34), so that both can register it on the same ConfigOpts.
PMEM_NAMESPACES = cfg.ListOpt(
    "pmem_namespaces",
    item_type=types.String(),
    default=[],
    sample_default=["4GB:ns0|ns1", "SMALL:ns2"],
    help="""
Namespaces for guests, by label:
``$LABEL:$NAMESPACE[|$NAMESPACE][,$LABEL:$NAMESPACE[|$NAMESPACE]]``.

* ``$NAMESPACE`` is the name of a namespace of this host, or its uuid if two namespaces have the same name.
* ``$LABEL`` is the name that a flavor asks for (``hw:pmem=4GB,SMALL``). Labels are compared by their resource class,
  ``CUSTOM_PMEM_NAMESPACE_$LABEL``, in upper case and with an underscore for every other character.
* Only a label that begins with ``VOLATILE`` may have volatile memory, which loses its content when the host restarts.
""",
)

VPMEM_OPTS = [
    cfg.StrOpt(
        "discovery",
        default="ndctl",
        choices=[
            ("ndctl", "run the ndctl program (needs root)"),
            ("sysfs", "read /sys/bus/nd and /sys/bus/dax (needs neither ndctl nor root)"),
            ("directory", "use preallocated files in the directory of the option 'directory', one namespace each"),
        ],
        help="Source of this host's namespaces.",
    ),
    cfg.Opt(
        "directory",
        type=_Text(),
        help="""
Directory of the files for ``discovery = directory``, preferably on a DAX filesystem. The name of a file is the name
of the namespace. Files in subdirectories ``node0``, ``node1``, … have that NUMA node, other files have none.
""",
    ),
    cfg.ListOpt(
        "device_model",
        item_type=types.String(),
        default=[],
        sample_default=["4GB:nvdimm", "SMALL:virtio-pmem"],
        help="""
What the guest of a new claim gets: ``$LABEL:$MODEL[,$LABEL:$MODEL]``, or ``$MODEL`` for all other labels.

* ``nvdimm`` is a NVDIMM. On a file without DAX, a power loss of the host takes what the host has not written back.
* ``virtio-pmem`` is for files: what a guest flushes is on the host's disk. It needs libvirt 9.4 and a guest with the
  driver ``virtio_pmem``, and it cannot be migrated live.

The default is ``virtio-pmem`` for a file on a filesystem without DAX, if the libvirt of this host starts it, and
``nvdimm`` otherwise. The choice is kept until the owner releases the namespace, also if this option changes.
""",
    ),
    cfg.ListOpt(
        "label_size",
        item_type=types.String(),
        default=[],
        sample_default=["4GB:0"],
        help="""
Size of the area for namespace labels at the end of a nvdimm of a new claim: ``$LABEL:$SIZE[,$LABEL:$SIZE]``, or
``$SIZE`` for all other labels. 0: none; 128KiB to 2MiB. The default is 2MiB, as in Nova's own driver.

The label area takes one unit of the alignment of a namespace, which is 1 GiB for some. Without it, a guest gets all of
the namespace, and cannot divide it into namespaces of its own. The choice is kept as that of ``device_model``.
""",
    ),
    cfg.Opt(
        "state_path",
        type=_AbsolutePath(),
        default="/var/lib/vpmem",
        help="Directory of the ledger, an absolute path. It is created, private to its owner, if it does not exist.",
    ),
    cfg.Opt(
        "history_days",
        type=_Number(min=0, max=36500),
        default=400,
        help="""
Remove lines of the history after so many days; 0: never. The lines that explain the present state of a namespace, since
it last got an owner, stay.
""",
    ),
    cfg.Opt(
        "connection_uri",
        type=_Text(),
        help="""
URI of the libvirt to ask, before a wipe, whether a running domain uses the namespace. The default is
``qemu:///system`` if a libvirt daemon has a socket on this host. If libvirt does not answer, nothing is wiped.
Processes that have the namespace mapped are checked in any case.
""",
    ),
    cfg.Opt(
        "wipe_command",
        type=_Command(),
        help="""
Command that starts each wipe, if this user cannot open the devices. Example:
``sudo nova-rootwrap /etc/nova/rootwrap.conf vpmem-wipe``. ``vpmem-wipe`` takes no arguments. It finds namespaces as
/etc/vpmem/vpmem.conf says, in a directory that only root may write to. By default a wipe runs as the current user.
""",
    ),
    cfg.Opt(
        "wipe_parallel",
        type=_Number(min=1, max=64),
        default=2,
        help="Number of namespaces wiped at the same time.",
    ),
    cfg.Opt(
        "wipe_threads",
        type=_Number(min=0, max=256),
        default=0,
        help="Threads for each wipe; 0: one per CPU, up to 4.",
    ),
    cfg.Opt(
        "wipe_rate",
        type=_Number(min=0, max=1 << 40),
        default=0,
        help="Limit, in MiB per second, for the writes and reads of the wipe of one namespace; 0: no limit.",
    ),
    cfg.Opt(
        "copy_command",
        type=_Command(),
        help="""
Like ``wipe_command``, for the processes that copy a namespace. Example:
``sudo nova-rootwrap /etc/nova/rootwrap.conf vpmem-copy``. ``vpmem-copy`` lets its user read and write every namespace
of this host.
""",
    ),
    cfg.Opt(
        "copy_rate",
        type=_Number(min=0, max=1 << 40),
        default=0,
        help="Limit, in MiB per second, for what the copy of one namespace sends or writes; 0: no limit.",
    ),
    cfg.BoolOpt(
        "copy_compression",
        default=False,
        help="Compress what a copy sends to another host with zstd. Both hosts need the Python package zstandard.",
    ),
    cfg.Opt(
        "ssh_command",
        type=_Command(),
        default="ssh -o BatchMode=yes -o ConnectTimeout=30 -o ServerAliveInterval=15",
        help="""
Command that connects to another host for a copy, without the host. On a compute host it runs as Nova's user, to the
same addresses as Nova's own copies of disks. Add ``-J HOST`` for a jump host, and ``-c CIPHER``
for a faster cipher.
""",
    ),
    cfg.Opt(
        "receive_command",
        type=_Command(),
        default="vpmem-nova-receive",
        help="""
Command that ``ssh_command`` runs on the destination of a cold migration or resize. Give its path if it is installed
where ssh does not find it, such as in a virtual environment.
""",
    ),
    cfg.StrOpt(
        "on_move",
        default="copy",
        choices=[
            ("copy", "copy it; refuse a move that cannot copy all of it"),
            ("discard", "discard it, as Nova does: the server starts with empty memory"),
            ("refuse", "refuse the move"),
        ],
        help="""
What a cold migration or resize does with the content of a server's persistent memory. The extra spec
``vpmem:on_resize`` of the new flavor takes precedence.
""",
    ),
    cfg.StrOpt(
        "on_shelve",
        default="refuse",
        choices=[
            ("refuse", "refuse to shelve a server with persistent memory if that offloads it"),
            ("discard", "discard it, as Nova does: the server starts with empty memory when it is unshelved"),
            ("export", "write it to files in export_path; it comes back when the server is unshelved"),
        ],
        help="""
What offloading a shelved server does with the content of its persistent memory. The extra spec ``vpmem:on_shelve`` of
its flavor takes precedence.
""",
    ),
    cfg.Opt(
        "export_path",
        type=_AbsolutePath(),
        help="""
Directory for the content of shelved servers' persistent memory, an absolute path. It must belong to Nova's user or to
root, and nobody else may write to it. To unshelve a server on another host, mount the directory on all hosts.
""",
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register all options on `conf`, except those that it already has (Nova's own pmem_namespaces)."""
    if "libvirt" not in conf or PMEM_NAMESPACES.dest not in conf.libvirt:
        conf.register_opt(PMEM_NAMESPACES, group="libvirt")
    conf.register_opts(VPMEM_OPTS, group="vpmem")


def read(config_files: Iterable[str] = ()) -> cfg.ConfigOpts:
    """Read the options from `config_files`, or from oslo.config's default files for vpmem if there are none.

    :raises InvalidConfigFile: a file is missing or cannot be read
    :raises InvalidOption: an option has an invalid value
    """
    return _read([f"--config-file={file}" for file in config_files])


def read_file_only(path: str, *, required: bool = False) -> cfg.ConfigOpts:
    """Read the options from one file. Programs that root runs for others must ignore environment and home directory.

    :param required: fail if the file does not exist, instead of using the defaults
    :raises InvalidConfigFile: the file cannot be read, or is required and does not exist
    :raises InvalidOption: an option has an invalid value
    """
    files = [path] if required or os.path.lexists(path) else []
    return _read([], default_config_files=files, default_config_dirs=[], use_env=False)


def _read(words: list[str], **arguments: typing.Any) -> cfg.ConfigOpts:
    """Errors and their causes contain no line of a file: nova.conf has passwords."""
    options = cfg.ConfigOpts()
    register_opts(options)
    try:
        options(words, project="vpmem", prog="vpmem", **arguments)
    except cfg.ConfigFileParseError as error:
        cause = error.__context__
        where = f": line {cause.lineno}, {cause.msg}" if isinstance(cause, cfg.ParseError) else ""
        raise exception.InvalidConfigFile(reason=f"{error.config_file} cannot be parsed{where}") from None
    except UnicodeDecodeError as error:
        names = ", ".join(options.config_file or options.default_config_files or words)
        raise exception.InvalidConfigFile(reason=f"{names} is not UTF-8 text") from error
    except OSError as error:
        raise exception.InvalidConfigFile(reason=f"{error.filename}: {error.strerror}") from error
    except cfg.Error as error:
        raise exception.InvalidConfigFile(reason=str(error)) from error
    _check_values(options)
    return options


def _check_values(options: cfg.ConfigOpts) -> None:
    for group, opts in list_opts():
        for opt in opts:
            try:
                options[group][opt.dest]
            except (cfg.Error, ValueError, RecursionError) as error:
                # oslo.config's own error repeats the name of the option; its context has the reason alone.
                reason = error.__context__ if isinstance(error.__context__, ValueError) else error
                raise exception.InvalidOption(
                    group=group, option=opt.name, reason=exception.shorten(reason), remedy="Correct its value"
                ) from error


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return all options by group, for oslo-config-generator."""
    return [("libvirt", [PMEM_NAMESPACES]), ("vpmem", VPMEM_OPTS)]
