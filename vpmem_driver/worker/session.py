"""The worker's main program: wipe or copy one namespace. Its command is ``python -m vpmem_driver.worker``.

It is a separate process because a store to bad media raises SIGBUS. It communicates with its parent
(:mod:`vpmem_driver.engine`) by :mod:`vpmem_driver.protocol`. These rules hold:

* It accepts no path. The parent identifies a namespace by uuid, and the worker looks up the device when it uses it.
* Before it overwrites the first byte, it holds the lock on the device (flock, exclusive), and no other process has the
  device mapped or open. It checks this before it reports ready, again after go, and at the end of the work.
* Every byte count that it reports is durable. It stops soon after stdin closes, and does not outlive its parent.
* It keeps the lock until stdin closes, so that the parent records the outcome before another process gets the device.

The content of the device goes nowhere but into the stream of a copy: not to stdout, to stderr or into a core dump.
"""

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator

from vpmem_driver import _linux, _pmem, device_users, discovery, exception, protocol
from vpmem_driver.discovery import interface
from vpmem_driver.protocol import Outcome
from vpmem_driver.worker.copy import Copy, Receive, Send
from vpmem_driver.worker.device import Device, Failed
from vpmem_driver.worker.parent import Parent, Stopped
from vpmem_driver.worker.wipe import Wipe

NICENESS = 10
#: The exit status for an invalid task.
USAGE_ERROR = 2

_EHWPOISON = 133  # <asm-generic/errno.h>; not in the errno module
_MEDIA_ERRORS = (errno.EIO, errno.ENODATA, _EHWPOISON)


def wipe(task: protocol.Task, parent: Parent, source: interface.Discovery, *, privileged: bool = False) -> None:
    """Wipe the namespace.

    :param privileged: see :func:`main`
    :raises Failed: it could not be wiped, or must not be
    :raises HostError: discovery failed, or processes could not be inspected; nothing was changed
    :raises OSError: the host failed in another way; nothing was changed
    :raises Stopped: the parent stopped the wipe
    """
    device = _open(task, source, privileged=privileged)
    _require_durable(device)
    _report_ready(parent)
    if parent.line() != protocol.GO:
        raise Stopped
    with _unused(device):
        passes = Wipe(device, parent, threads=task.threads, rate=task.rate, reported=task.start)
        start = 0 if privileged else task.start
        passes.zero(start)
        passes.verify(start)


def send(task: protocol.SendTask, parent: Parent, source: interface.Discovery, *, privileged: bool = False) -> None:
    """Write the content of the namespace to a stream. Parameters and errors are those of :func:`wipe`."""
    device = _open(task, source, privileged=privileged, limit=task.length)
    _report_ready(parent)
    fd = parent.stream()
    passes = Send(
        device,
        parent,
        threads=task.threads,
        rate=task.rate,
        parts=task.parts,
        length=task.length,
        pack=task.pack,
    )
    with _unused(device):
        passes.send(fd, task.start)
    with _device_errors():
        passes.end(fd)


def receive(
    task: protocol.ReceiveTask, parent: Parent, source: interface.Discovery, *, privileged: bool = False
) -> None:
    """Overwrite the namespace with the content of a stream. Parameters and errors are those of :func:`wipe`."""
    device = _open(task, source, privileged=privileged)
    _require_durable(device)
    _report_ready(parent)
    fd = parent.stream()
    with _unused(device):
        passes = Receive(device, parent, threads=task.threads, rate=task.rate)
        passes.verify(passes.receive(fd, task.start), task.start)


def copy(task: protocol.CopyTask, parent: Parent, source: interface.Discovery, *, privileged: bool = False) -> None:
    """Overwrite the namespace with the content of another one. Parameters and errors are those of :func:`wipe`."""
    device = _open(task, source, privileged=privileged)
    _require_durable(device)
    origin = Device.open(source, task.source, task.source_size, privileged=privileged)
    _refuse_if_used(origin)
    _report_ready(parent)
    if parent.line() != protocol.GO:
        raise Stopped
    with _unused(device, origin):
        passes = Copy(device, parent, threads=task.threads, rate=task.rate, source=origin, parts=task.parts)
        passes.copy(task.start)
        passes.verify(task.start)


def _open(task: protocol.Task, source: interface.Discovery, *, privileged: bool, limit: int | None = None) -> Device:
    """Open and lock the namespace of a task. :raises Failed: see :meth:`Device.open`, or a process uses it."""
    if task.start > (task.size if limit is None else limit):
        raise Failed(Outcome.HOST, f"the work cannot start at byte {task.start} of {task.size}")
    device = Device.open(source, task.uuid, task.size, privileged=privileged)
    _refuse_if_used(device)
    return device


def _report_ready(parent: Parent) -> None:
    # Not earlier: on a busy host, it would keep open for seconds what another worker has locked.
    os.nice(NICENESS)
    parent.report(protocol.Ready())


def _require_durable(device: Device) -> None:
    if not device.cached and _pmem.backend() == "memset":
        raise Failed(Outcome.HOST, "this package cannot write durably to persistent memory on this CPU")


@contextlib.contextmanager
def _unused(*devices: Device) -> Iterator[None]:
    """Let the body work on devices that nobody else uses when it begins, nor when it ends.

    If it fails while somebody does, that is why: bytes that somebody else has written are no fault of the medium.

    :raises Failed: a process uses a device, or the body raises an OSError
    """
    _refuse_if_used(*devices)
    try:
        with _device_errors():
            yield
    except Failed:
        _refuse_if_used(*devices)
        raise
    _refuse_if_used(*devices)


@contextlib.contextmanager
def _device_errors() -> Iterator[None]:
    """Tell errors of the medium from those of the host. :raises Failed: instead of an OSError."""
    try:
        yield
    except OSError as error:
        outcome = Outcome.MEDIA if error.errno in _MEDIA_ERRORS else Outcome.HOST
        raise Failed(outcome, f"access to the device failed: {error.strerror}") from error


def _refuse_if_used(*devices: Device) -> None:
    for device in devices:
        user = device_users.mapped_by(device.fd)
        if user is not None:
            raise Failed(Outcome.IN_USE, user)


def main(
    make: Callable[..., interface.Discovery] = discovery.make,
    *,
    privileged: bool = False,
    decode: Callable[[bytes], protocol.AnyTask] = protocol.decode_task,
) -> int:
    """Execute the task that the parent sends on stdin.

    :param privileged: this process has more privileges than its parent. It then uses no directory that others may write
        to, and a wipe reads back only bytes that it has zeroed itself
    :param decode: decodes the tasks that are allowed
    :returns: the exit status
    """
    _linux.end_with_parent(signal.SIGTERM)
    parent = _reserve_standard_streams()
    try:
        task = decode(parent.line())
    except Stopped:
        return 0
    except protocol.NOT_UNDERSTOOD as error:
        print(f"vpmem: invalid task on standard input: {error}", file=sys.stderr)
        return USAGE_ERROR
    with contextlib.suppress(Stopped):
        parent.report(_outcome(task, parent, make, privileged=privileged))
        parent.wait_until_closed()
    return 0


def _outcome(
    task: protocol.AnyTask, parent: Parent, make: Callable[..., interface.Discovery], *, privileged: bool
) -> protocol.Event:
    """Do the work, and return the event that reports the outcome. :raises Stopped: the parent stopped it."""
    work, done = _WORK[type(task)]
    try:
        work(task, parent, make(task.discovery, **task.options), privileged=privileged)
    except Failed as failure:
        return protocol.Failure(failure.outcome, str(failure))
    except exception.VPMEMError as error:
        return protocol.Failure(Outcome.HOST, str(error).rstrip("."))
    except OSError as error:
        return protocol.Failure(Outcome.HOST, error.strerror or type(error).__name__)
    return done


#: The function for each task, and the event that reports its success.
_WORK: dict[type[protocol.Task], tuple[Callable[..., None], protocol.Event]] = {
    protocol.Task: (wipe, protocol.Wiped()),
    protocol.SendTask: (send, protocol.Sent()),
    protocol.ReceiveTask: (receive, protocol.Copied()),
    protocol.CopyTask: (copy, protocol.Copied()),
}


def _reserve_standard_streams() -> Parent:
    """Reserve stdin and stdout for the protocol: no code or program called later may read or write them."""
    parent = Parent(os.dup(0), os.dup(1))
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return parent
