"""``vpmem-wipe``: the child process of a wipe, for a service that may not open the devices itself.

It is run as root, by sudo or rootwrap, without arguments. What the service says names a namespace by uuid and nothing
else: where namespaces are looked for is this side's own configuration, never the request's. So the service can have
persistent memory of this host overwritten, and no other file. Of root's capabilities it keeps three.

* Its configuration is one file of root's. Environment variables and home directories count for nothing, neither here
  nor in the programs that it starts, such as ndctl.
* It uses no file and no directory that others may write to.
* It zeroes every byte before it reads one, so that it tells nothing of what the namespace held.
"""

import os
import stat
import sys

from oslo_config import cfg

from vpmem_driver import conf, discovery, exception
from vpmem_driver.discovery import interface
from vpmem_driver.worker import capabilities, device, session

#: All that is left of the environment.
ENVIRONMENT = {"LC_ALL": "C.UTF-8", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


def _make(_name: str, /, **_options: str) -> interface.Discovery:
    """The discovery of our own configuration.

    :raises ConfigurationError: the configuration cannot be used
    :raises Failed: others may write to the configuration file, to its directory, or to that of the namespaces
    """
    _check_config_file()
    try:
        source = discovery.from_conf(conf.read_file_only(conf.CONFIG_FILE))
    except cfg.Error as error:
        raise exception.InvalidConfigFile(reason=error) from error
    if directory := source.options().get("directory"):
        _check_directory(directory)
    return source


def _check_config_file() -> None:
    try:
        directory = device.open_directory(os.path.dirname(conf.CONFIG_FILE), privileged=True)
        try:
            status = os.stat(os.path.basename(conf.CONFIG_FILE), dir_fd=directory, follow_symlinks=False)
        finally:
            os.close(directory)
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        reason = f"a directory on the way to {conf.CONFIG_FILE} is a symbolic link"
        raise exception.InvalidConfigFile(reason=reason) from error
    if not stat.S_ISREG(status.st_mode):
        raise exception.InvalidConfigFile(reason=f"{conf.CONFIG_FILE} is not a regular file")
    device.refuse_if_shared(status, conf.CONFIG_FILE)


def _check_directory(path: str) -> None:
    """Whoever may have `path` lead elsewhere could have any file taken for a namespace."""
    try:
        os.close(device.open_directory(path, privileged=True))
    except FileNotFoundError:
        pass  # discovery says so
    except NotADirectoryError as error:
        raise exception.InvalidOption(
            group="vpmem",
            option="directory",
            reason=f"'{path}' leads through a symbolic link, or to no directory",
            remedy=f"Set it in {conf.CONFIG_FILE} to the directory's real path.",
        ) from error


def main() -> int:
    """Do what stdin says; see :mod:`.child`."""
    if not sys.flags.isolated:
        # A console script is started by a plain interpreter, which heeds PYTHONPATH and its like, and HOME.
        arguments = (sys.executable, "-I", "-m", "vpmem_driver.worker.privileged")
        os.execve(sys.executable, arguments, ENVIRONMENT)  # noqa: S606  no shell is wanted
    os.environ.clear()
    os.environ.update(ENVIRONMENT)
    try:
        capabilities.keep_only(*capabilities.FOR_A_WIPE)
    except OSError as error:
        print(f"vpmem-wipe: capabilities cannot be given up: {error.strerror}", file=sys.stderr)
        return 1
    return session.main(_make, privileged=True)


if __name__ == "__main__":
    sys.exit(main())
