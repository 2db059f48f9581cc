"""``vpmem-wipe`` and ``vpmem-copy``: the worker processes for a service that may not open the devices itself.

sudo or rootwrap runs them as root, without arguments. The request identifies a namespace by uuid only: this process
looks it up with its own configuration, never with that of the request. So the service can have persistent memory of
this host overwritten, but no other file. ``vpmem-wipe`` only wipes. ``vpmem-copy`` only copies: its user can read and
write every namespace of this host. The process keeps three of root's capabilities.

* Its configuration is one file of root's. Environment variables and home directories are ignored, here and in the
  programs that it starts, such as ndctl.
* It uses no file and no directory that other users may write to.
* A wipe zeroes every byte before it reads one, so that it reveals nothing of the namespace's content.
"""

import os
import stat
import sys

from oslo_config import cfg

from vpmem_driver import conf, discovery, exception, protocol
from vpmem_driver.discovery import interface
from vpmem_driver.worker import capabilities, device, session

#: The whole environment of the process.
ENVIRONMENT = {"LC_ALL": "C.UTF-8", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


def _make(_name: str, /, **_options: str) -> interface.Discovery:
    """Create the discovery of this process's own configuration; the request's name and options are ignored.

    :raises ConfigurationError: the configuration is invalid
    :raises Failed: other users may write to the configuration file, its directory, or the directory of namespaces
    """
    _check_config_file()
    try:
        source = discovery.from_conf(conf.read_file_only(conf.CONFIG_FILE))
    except cfg.Error as error:
        raise exception.InvalidConfigFile(reason=str(error)) from error
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
    """Verify that no other user can redirect `path`, and so have any file taken for a namespace."""
    try:
        os.close(device.open_directory(path, privileged=True))
    except FileNotFoundError:
        pass  # discovery reports this
    except NotADirectoryError as error:
        raise exception.InvalidOption(
            group="vpmem",
            option="directory",
            reason=f"'{path}' contains a symbolic link, or is not a directory",
            remedy=f"Set it in {conf.CONFIG_FILE} to the directory's real path",
        ) from error


def main() -> int:
    """Run a worker that wipes; see :mod:`.session`."""
    return _main("vpmem-wipe")


def main_copy() -> int:
    """Run a worker that copies; see :mod:`.session`."""
    return _main("vpmem-copy")


def _main(program: str) -> int:
    if not sys.flags.isolated:
        # The interpreter of a console script is not isolated: it uses HOME and variables such as PYTHONPATH.
        arguments = (sys.executable, "-I", "-m", "vpmem_driver.worker.privileged", program)
        os.execve(sys.executable, arguments, ENVIRONMENT)  # noqa: S606  no shell is needed
    os.environ.clear()
    os.environ.update(ENVIRONMENT)
    try:
        capabilities.keep_only(*capabilities.FOR_A_WIPE)
    except OSError as error:
        print(f"{program}: cannot drop capabilities: {error.strerror}", file=sys.stderr)
        return 1
    decode = protocol.decode_copy_task if program == "vpmem-copy" else protocol.decode_wipe_task
    return session.main(_make, privileged=True, decode=decode)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1]))
