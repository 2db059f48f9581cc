"""Options. They are registered on the ConfigOpts that is handed in and read when a pool or a driver is made."""

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
    """Text that a path, a URI or a program's argument can be."""

    def __call__(self, value: object) -> str:
        text = str(super().__call__(value))
        if not text.isprintable():
            raise ValueError("it has characters that cannot be printed")
        return text


class _AbsolutePath(_Text):
    """One that does not depend on where a program is started."""

    def __call__(self, value: object) -> str:
        path = super().__call__(value)
        if not os.path.isabs(path):
            raise ValueError(f"'{exception.shorten(path)}' is not an absolute path")
        return path


class _Command(_Text):
    """A program and its arguments, quoted as for a shell."""

    def __call__(self, value: object) -> str:
        command = super().__call__(value)
        shlex.split(command)  # ValueError: a quote is left open
        return command


class _Number(types.Integer):
    """An integer. oslo.config's own type makes None of an empty value."""

    def __call__(self, value: object) -> int:
        number = super().__call__(value)
        if number is None:
            raise ValueError("a number is missing")
        return int(number)


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
    cfg.Opt(
        "directory",
        type=_Text(),
        help="""
The directory of ``discovery = directory``, best on a DAX filesystem. A file's name is the namespace's name.
Files directly in it have no NUMA node; those in its subdirectories ``node0``, ``node1``, … have that one.
""",
    ),
    cfg.Opt(
        "state_path",
        type=_AbsolutePath(),
        default="/var/lib/vpmem",
        help="Directory of the ledger, an absolute path. It is made, private to its owner, when it is not there.",
    ),
    cfg.Opt(
        "connection_uri",
        type=_Text(),
        help="""
The libvirt whose running domains are asked before a namespace is wiped. Unset, it is ``qemu:///system`` if the
socket of a libvirt daemon is there. When it is set and does not answer, nothing is wiped. Processes that map the
namespace are looked for in any case.
""",
    ),
    cfg.Opt(
        "wipe_command",
        type=_Command(),
        help="""
What to start for each wipe when this user may not open the devices, for example
``sudo nova-rootwrap /etc/nova/rootwrap.conf vpmem-wipe``. It takes no arguments, and looks namespaces up where
/etc/vpmem/vpmem.conf says, in a directory that only root may write to. Unset, the wipe runs as the user who asks for
it.
""",
    ),
    cfg.Opt("wipe_parallel", type=_Number(min=1, max=64), default=2, help="How many namespaces are wiped at a time."),
    cfg.Opt(
        "wipe_threads",
        type=_Number(min=0, max=256),
        default=0,
        help="Threads for each namespace that is wiped; 0: up to 4, by CPUs.",
    ),
    cfg.Opt(
        "wipe_rate",
        type=_Number(min=0, max=1 << 40),
        default=0,
        help="Most MiB per second that the wipe of one namespace writes, and then reads; 0: no limit.",
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register all options on `conf`, except those that it has already (Nova's own pmem_namespaces)."""
    if "libvirt" not in conf or PMEM_NAMESPACES.dest not in conf.libvirt:
        conf.register_opt(PMEM_NAMESPACES, group="libvirt")
    conf.register_opts(VPMEM_OPTS, group="vpmem")


def read(config_files: Iterable[str] = ()) -> cfg.ConfigOpts:
    """The options as `config_files` have them; where there are none, as oslo.config's own files for vpmem have them.

    :raises InvalidConfigFile: a file is missing or cannot be read
    :raises InvalidOption: an option has a value that it cannot have
    """
    return _read([f"--config-file={file}" for file in config_files])


def read_file_only(path: str, *, required: bool = False) -> cfg.ConfigOpts:
    """The options of one file: for what root runs for others, whose environment and home directory must not count.

    :param required: the file must be there; without it, all options have their defaults when it is not
    :raises InvalidConfigFile: the file cannot be read, or it is required and not there
    :raises InvalidOption: an option has a value that it cannot have
    """
    files = [path] if required or os.path.lexists(path) else []
    return _read([], default_config_files=files, default_config_dirs=[], use_env=False)


def _read(words: list[str], **arguments: typing.Any) -> cfg.ConfigOpts:
    """No line of a file is in an error, nor in its cause: nova.conf has passwords."""
    options = cfg.ConfigOpts()
    register_opts(options)
    try:
        options(words, project="vpmem", prog="vpmem", **arguments)
    except cfg.ConfigFileParseError as error:
        cause = error.__context__
        said = f": line {cause.lineno}, {cause.msg}" if isinstance(cause, cfg.ParseError) else ""
        raise exception.InvalidConfigFile(reason=f"{error.config_file} cannot be parsed{said}") from None
    except UnicodeDecodeError as error:
        names = ", ".join(options.config_file or options.default_config_files or words)
        raise exception.InvalidConfigFile(reason=f"{names} is not all UTF-8 text") from error
    except OSError as error:
        raise exception.InvalidConfigFile(reason=f"{error.filename}: {error.strerror}") from error
    except cfg.Error as error:
        raise exception.InvalidConfigFile(reason=error) from error
    _check_values(options)
    return options


def _check_values(options: cfg.ConfigOpts) -> None:
    for group, opts in list_opts():
        for opt in opts:
            try:
                options[group][opt.dest]
            except (cfg.Error, ValueError, RecursionError) as error:
                # What the value lacks is in the context of oslo.config's own error, which names the option again.
                reason = error.__context__ if isinstance(error.__context__, ValueError) else error
                raise exception.InvalidOption(
                    group=group, option=opt.name, reason=exception.shorten(reason), remedy="Correct its value."
                ) from error


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """All options by group, for oslo-config-generator."""
    return [("libvirt", [PMEM_NAMESPACES]), ("vpmem", VPMEM_OPTS)]
