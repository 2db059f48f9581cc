"""Discovery of namespaces: three sources with one interface, :class:`.interface.Discovery`."""

import os
import typing

from vpmem_driver import exception
from vpmem_driver.discovery import directory, interface, ndctl, sysfs

if typing.TYPE_CHECKING:  # the child process that wipes imports this module, and does not need oslo.config
    from oslo_config import cfg

__all__ = ["from_conf", "make"]

_OPTIONS = {"ndctl": ("root",), "sysfs": ("root",), "directory": ("directory",)}


def make(name: str, /, **options: str) -> interface.Discovery:
    """Create a discovery by name. ``make(discovery.name, **discovery.options())`` creates an equal one elsewhere.

    :param options: `root` for ndctl and sysfs, if it is not ``/sys``; `directory` for directory, an absolute path
    :raises InvalidOption: the discovery does not exist, or does not have these options
    """
    if name not in _OPTIONS:
        raise _invalid("discovery", f"'{name}' does not exist", f"Choose one of {', '.join(_OPTIONS)}")
    for option in options:
        if option not in _OPTIONS[name]:
            raise _invalid(option, f"discovery = {name} has no such option", "Remove the option")
    if name == "ndctl":
        return ndctl.NdctlDiscovery(sysfs_root=options.get("root", "/sys"))
    if name == "sysfs":
        return sysfs.SysfsDiscovery(options.get("root", "/sys"))
    return directory.DirectoryDiscovery(_absolute(options.get("directory")))


def from_conf(conf: "cfg.ConfigOpts") -> interface.Discovery:
    """Create the discovery that the options of group vpmem select.

    :raises InvalidOption: discovery = directory without a directory, or with a relative one
    """
    name = conf.vpmem.discovery
    options = {"directory": conf.vpmem.directory} if name == "directory" and conf.vpmem.directory else {}
    return make(name, **options)


def _absolute(path: str | None) -> str:
    remedy = "Set it to the absolute path of the directory with the files of the namespaces"
    if not path:
        raise _invalid("directory", "it is not set, but discovery = directory needs it", remedy)
    if not os.path.isabs(path):
        # A relative path would depend on the working directory of the service and of its child processes.
        raise _invalid("directory", f"'{path}' is a relative path", remedy)
    return path


def _invalid(option: str, reason: str, remedy: str) -> exception.InvalidOption:
    return exception.InvalidOption(group="vpmem", option=option, reason=reason, remedy=remedy)
