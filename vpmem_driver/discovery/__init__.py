"""Where namespaces come from: three sources behind one contract, :class:`.interface.Discovery`."""

import os
import typing

from vpmem_driver import exception
from vpmem_driver.discovery import directory, interface, ndctl, sysfs

if typing.TYPE_CHECKING:  # the child process that wipes has no use for it, and loads this module
    from oslo_config import cfg

__all__ = ["from_conf", "make"]

_OPTIONS = {"ndctl": (), "sysfs": ("root",), "directory": ("directory",)}


def make(name: str, /, **options: str) -> interface.Discovery:
    """The discovery of that name; elsewhere one like it by ``make(discovery.name, **discovery.options())``.

    :param options: `root` for sysfs, where it is not ``/sys``; `directory` for directory, an absolute path
    :raises InvalidOption: there is no such discovery, or the options are not what it takes
    """
    if name not in _OPTIONS:
        raise _invalid("discovery", f"there is no discovery '{name}'", f"Choose one of {', '.join(_OPTIONS)}.")
    for option in options:
        if option not in _OPTIONS[name]:
            raise _invalid(option, f"discovery = {name} has no such option", "Leave it out.")
    if name == "ndctl":
        return ndctl.NdctlDiscovery()
    if name == "sysfs":
        return sysfs.SysfsDiscovery(options.get("root", "/sys"))
    return directory.DirectoryDiscovery(_absolute(options.get("directory")))


def from_conf(conf: "cfg.ConfigOpts") -> interface.Discovery:
    """The discovery that the options of group vpmem select.

    :raises InvalidOption: discovery = directory without a directory, or with a relative one
    """
    name = conf.vpmem.discovery
    options = {"directory": conf.vpmem.directory} if name == "directory" and conf.vpmem.directory else {}
    return make(name, **options)


def _absolute(path: str | None) -> str:
    remedy = "Set it to the absolute path of the directory with the namespaces' files."
    if not path:
        raise _invalid("directory", "it is not set, and discovery = directory needs it", remedy)
    if not os.path.isabs(path):
        # It would depend on where a service happens to be started, and its child processes with it.
        raise _invalid("directory", f"'{path}' is a relative path", remedy)
    return path


def _invalid(option: str, reason: str, remedy: str) -> exception.InvalidOption:
    return exception.InvalidOption(group="vpmem", option=option, reason=reason, remedy=remedy)
