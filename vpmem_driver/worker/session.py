"""What a worker does: it wipes one namespace. Its command is ``python -m vpmem_driver.worker``.

It is a process of its own because a store to bad media raises SIGBUS. It talks to its parent
(:mod:`vpmem_driver.engine`) as :mod:`vpmem_driver.protocol` says. These rules hold:

* It takes no path. The parent names a namespace by uuid; the device is looked up here, at the moment of use.
* Before the first byte it holds the lock on the device (flock, exclusive), and no other process has the device mapped
  or open: neither before the parent is told so, nor after it has said go. What maps it later is not seen.
* Every number of bytes that it reports is durable. When stdin closes it stops soon, and it does not outlive its parent.
* It keeps the lock until stdin closes: the parent writes down the outcome before anybody else can get the device.

What the device holds goes nowhere else: not to stdout, not to stderr, not into a core dump.
"""

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable

from vpmem_driver import _linux, _pmem, device_users, discovery, exception, protocol
from vpmem_driver.discovery import interface
from vpmem_driver.protocol import Outcome
from vpmem_driver.worker.device import Device, Failed
from vpmem_driver.worker.parent import Parent, Stopped
from vpmem_driver.worker.wipe import Wipe

NICENESS = 10
#: The exit status when the task is not understood.
USAGE_ERROR = 2

_EHWPOISON = 133  # <asm-generic/errno.h>; the errno module has it not
_MEDIA_ERRORS = (errno.EIO, errno.ENODATA, _EHWPOISON)


def wipe(task: protocol.Task, parent: Parent, source: interface.Discovery, *, privileged: bool = False) -> None:
    """Wipe the namespace.

    :param privileged: see :func:`main`
    :raises Failed: it could not be wiped, or should not be
    :raises HostError: discovery failed, or processes could not be looked at; nothing was changed
    :raises OSError: the host failed otherwise; nothing was changed
    :raises Stopped: the parent does not want it any more
    """
    if task.start > task.size:
        raise Failed(Outcome.HOST, f"the wipe was to start at byte {task.start} of {task.size}")
    device = Device.open(source, task.uuid, task.size, privileged=privileged)
    _refuse_if_used(device)
    if not device.cached and _pmem.backend() == "memset":
        raise Failed(Outcome.HOST, "there is no way here to write durably to persistent memory on a CPU of this kind")
    parent.tell(protocol.Ready())
    if parent.line() != protocol.GO:
        raise Stopped
    _refuse_if_used(device)
    passes = Wipe(device, parent, threads=task.threads, rate=task.rate)
    try:
        passes.zero(0 if privileged else task.start, reported=task.start)
        passes.verify()
    except OSError as error:
        outcome = Outcome.MEDIA if error.errno in _MEDIA_ERRORS else Outcome.HOST
        raise Failed(outcome, f"the device does not take it: {error.strerror}") from error


def _refuse_if_used(device: Device) -> None:
    user = device_users.mapped_by(device.fd)
    if user is not None:
        raise Failed(Outcome.IN_USE, user)


def main(make: Callable[..., interface.Discovery] = discovery.make, *, privileged: bool = False) -> int:
    """Do what stdin says.

    :param privileged: this process may do more than its parent. Then it uses no directory that others may write to, and
        reads back only what it has zeroed itself
    :returns: the exit status
    """
    os.nice(NICENESS)
    _linux.end_with_parent(signal.SIGTERM)
    parent = _take_over_standard_streams()
    try:
        task = protocol.decode_task(parent.line())
    except Stopped:
        return 0
    except protocol.NOT_UNDERSTOOD as error:
        print(f"vpmem: the task on standard input is not understood: {error}", file=sys.stderr)
        return USAGE_ERROR
    with contextlib.suppress(Stopped):
        parent.tell(_outcome(task, parent, make, privileged=privileged))
        parent.wait_until_closed()
    return 0


def _outcome(
    task: protocol.Task, parent: Parent, make: Callable[..., interface.Discovery], *, privileged: bool
) -> protocol.Event:
    """Wipe, and return what to tell the parent. :raises Stopped: it does not want it any more."""
    try:
        wipe(task, parent, make(task.discovery, **task.options), privileged=privileged)
    except Failed as failure:
        return protocol.Failure(failure.outcome, str(failure))
    except exception.VPMEMError as error:
        return protocol.Failure(Outcome.HOST, str(error).rstrip("."))
    except OSError as error:
        return protocol.Failure(Outcome.HOST, error.strerror or type(error).__name__)
    return protocol.Wiped()


def _take_over_standard_streams() -> Parent:
    """Keep stdin and stdout for the protocol: nothing that is called here may read the one or print to the other."""
    parent = Parent(os.dup(0), os.dup(1))
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return parent
