"""Exports: the content of a shelved server's memory, in files below ``[vpmem] export_path`` until it is unshelved.

An export has an id. Its files are in ``INSTANCE/ID``: one for each device, by position, and manifest.json when all are
durable and were read back. The instance's system metadata in Nova's database has the id, so that every host knows that
an offloaded server has content, and which one. Only the unshelving of an offloaded server reads it: the namespaces are
filled and verified before its guest starts. It is removed after that, or when Nova says that the server is deleted.
"""

import contextlib
import logging
import os
import pathlib
import re
import secrets
import shutil
import stat
import time
from collections.abc import Collection, Iterator, Sequence

from nova import objects
from nova.compute import vm_states

from vpmem_driver import exception, model
from vpmem_driver.nova import instances
from vpmem_driver.nova.host import failures_logged, which
from vpmem_driver.pool import Pool, Row, wipes
from vpmem_driver.stream import StreamBroken
from vpmem_driver.transfer import manifest
from vpmem_driver.transfer.archive import Header
from vpmem_driver.transfer.file_process import FileProcess, Read, Write

LOG = logging.getLogger(__name__)

#: The key in the instance's system metadata.
MARK = "vpmem_export"

_INSTANCE = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ID = re.compile("[0-9a-f]{16}")
#: How often to fill a namespace again, and after how many seconds.
_RETRIES = (1.0, 5.0, 15.0)
#: How often to ask Nova about exports of instances that hold nothing on this host.
_INTERVAL_SECONDS = 3600.0


class Exports:
    """The exports that this host can reach."""

    def __init__(self, pool: Pool, path: str | None) -> None:
        """`path` is the directory; None if there is none on this host."""
        self._pool = pool
        self._path = None if path is None else pathlib.Path(path)
        self._next = 0.0
        self._unknown: set[str] = set()

    # Shelve

    def require_room(self, instance: objects.Instance) -> pathlib.Path:
        """Return the directory, after checks that the content of the instance's memory can be written to it.

        :raises InvalidRequest: it is not configured
        :raises HostToolError: it cannot be used, or has not enough free space
        """
        directory = self._directory()
        needed = sum(grant.size for grant in self._pool.grants(instance.uuid))
        try:
            found = directory.stat()
            free = free_bytes(directory)
        except OSError as error:
            raise _unusable(directory, error.strerror or str(error)) from error
        if not stat.S_ISDIR(found.st_mode):
            raise _unusable(directory, "it is not a directory")
        if found.st_uid not in {0, os.geteuid()} or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise _unusable(directory, "another user may write to it")
        if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
            raise _unusable(directory, "this user may not write to it")
        if free < needed:
            raise _unusable(directory, f"{needed} bytes are needed, and {free} are free")
        return directory

    def export(self, instance: objects.Instance) -> None:
        """Write the content of the instance's memory to files, and record that in Nova's database.

        Its guest must be off, and does not start here after that, unless Nova starts it.

        :raises VPMEMError: that failed; nothing has changed
        """
        owner = instance.uuid
        export = secrets.token_hex(8)
        directory = self.require_room(instance) / owner / export
        self._pool.copies.depart(owner, export)
        try:
            try:
                directory.parent.mkdir(mode=0o700, exist_ok=True)
                directory.mkdir(mode=0o700)
                self._write_all(instance, export, directory)
            except OSError as error:
                raise _unusable(directory, error.strerror or str(error)) from error
            instance.system_metadata[MARK] = export
            instance.save()
        except BaseException:
            instance.system_metadata.pop(MARK, None)
            self._pool.copies.stay(owner)
            _remove(directory)
            raise
        LOG.info("Instance %s: the content of its persistent memory is in %s", owner, directory)

    def _write_all(self, instance: objects.Instance, export: str, directory: pathlib.Path) -> None:
        entries = [
            self._write(export, grant, directory / manifest.file_name(index))
            for index, grant in enumerate(self._pool.grants(instance.uuid, required=True))
        ]
        made = manifest.Manifest(domain=instance.uuid, name=instance.name, namespaces=tuple(entries))
        manifest.write(directory, made)
        for path in (directory, directory.parent, directory.parent.parent):
            _sync(path)

    def _write(self, departure: str, grant: model.Grant, path: pathlib.Path) -> manifest.Entry:
        readable, writable = os.pipe()
        failure: exception.VPMEMError | None = None
        try:
            try:
                process = FileProcess(Write(path=str(path), header=Header.of(grant)), stdin=readable)
            finally:
                os.close(readable)
            self._pool.copies.send(
                departure,
                grant.uuid,
                writable,
                destination=grant,
                start=0,
                pack=False,
                on_progress=wipes.ProgressLog(),
            )
        except exception.VPMEMError as error:
            failure = error
        finally:
            os.close(writable)
        try:
            digest = process.end()
        except StreamBroken as error:
            raise failure or _unusable(path, str(error)) from error
        if failure is not None:
            raise failure
        return manifest.Entry.of(grant, file=path.name, digest=digest)

    @staticmethod
    def forget(instance: objects.Instance) -> None:
        """Record that an export, if there is one, does not have the content of the instance's memory."""
        if instance.system_metadata.pop(MARK, None) is not None:
            instance.save()

    # Unshelve

    def bring_back(self, instance: objects.Instance, names: Sequence[str]) -> None:
        """Fill the namespaces `names` with the export of an instance that is unshelved; do nothing if it has none.

        The export stays: Nova may fail to start the guest. What an interrupted call has left is used.

        :raises VPMEMError: that failed. The export is unchanged
        """
        export = instance.system_metadata.get(MARK)
        held = self._pool.held(instance.uuid)
        is_interrupted = any(row.arrival == export and row.state is model.State.RECEIVING for row in held)
        if export is None or not (instance.vm_state == vm_states.SHELVED_OFFLOADED or is_interrupted):
            return
        directory = self._directory() / instance.uuid / export
        try:
            snapshot = manifest.read(directory)
        except OSError as error:
            raise _unusable(directory, error.strerror or str(error)) from error
        uuids = [uuid or self._pool.find(name) for name, uuid in zip(names, which(names, held), strict=True)]
        if len(uuids) != len(snapshot.namespaces) or snapshot.domain != instance.uuid:
            raise _unusable(
                directory, f"it has {len(snapshot.namespaces)} namespaces, and the instance has {len(uuids)}"
            )
        rows = self._pool.copies.expect_exact(
            instance.uuid, export, uuids, [model.Grant.elsewhere(entry) for entry in snapshot.namespaces]
        )
        for row, entry in zip(rows, snapshot.namespaces, strict=True):
            path = directory / entry.file
            try:
                self._read_again(export, row, path)
            except OSError as error:
                raise _unusable(path, error.strerror or str(error)) from error
        LOG.info("Instance %s: its persistent memory has the content of %s again", instance.uuid, directory)

    def _read_again(self, arrival: str, row: Row, path: pathlib.Path) -> None:
        """Fill a namespace, in several attempts: a wipe of it may be under way, and needs a moment to stop."""
        for seconds in _RETRIES:
            try:
                return self._read(arrival, row, path)
            except exception.CopyFailed as error:
                LOG.warning("%s Trying again in %.0f s", error, seconds)
                time.sleep(seconds)
        return self._read(arrival, row, path)

    def _read(self, arrival: str, row: Row, path: pathlib.Path) -> None:
        readable, writable = os.pipe()
        processes: list[FileProcess] = []
        failure: exception.VPMEMError | None = None

        def begin(start: int) -> None:
            task = Read(path=str(path), size=row.size, align=row.align, start=start)
            processes.append(FileProcess(task, stdout=writable))
            os.close(writable)

        try:
            self._pool.copies.receive(arrival, row.uuid, readable, on_ready=begin, on_progress=wipes.ProgressLog())
        except exception.VPMEMError as error:
            failure = error
        finally:
            os.close(readable)
            if not processes:
                os.close(writable)
        for process in processes:
            process.end()  # if both have failed, this one is the cause
        if failure is not None:
            raise failure

    # Removal

    def remove_unneeded(self, host: str) -> None:
        """Remove the exports of deleted instances, and of those whose memory has the content again. Never raises."""
        if self._path is None:
            return
        try:
            found = dict(self._found())  # before Nova is asked: an export that begins later is not in it
            holders = self._pool.owners()
            asked = found.keys() if self._is_due() else found.keys() & holders
        except Exception:
            LOG.exception("Cannot look for exports that are not needed any more in %s; they are kept", self._path)
            return
        for owner in sorted(asked):
            with failures_logged(owner, f"its exports in {self._path} are kept"):
                self._remove_unneeded(host, owner, found[owner])

    def _remove_unneeded(self, host: str, owner: str, exports: Collection[str]) -> None:
        instance = instances.find(owner, "system_metadata")
        if instance is None:
            if owner not in self._unknown:
                LOG.warning("Nova does not know instance %s, which has an export in %s. It is kept", owner, self._path)
            self._unknown.add(owner)
            return
        for export in exports:
            if instance.deleted or self._is_back(instance, host, export):
                _remove(self._directory() / owner / export)
                LOG.info("Instance %s: removed export %s", owner, export)

    def _is_back(self, instance: objects.Instance, host: str, export: str) -> bool:
        """Whether the instance is on this host and does not need an export. If so, Nova's database has none of it."""
        if not instances.is_settled(instance) or instance.host != host:
            return False
        if instance.system_metadata.get(MARK) != export:
            return True  # it failed, or a newer one has replaced it
        held = self._pool.held(instance.uuid)
        if not held or any(row.state is not model.State.CLAIMED or row.arrival != export for row in held):
            return False
        del instance.system_metadata[MARK]
        instance.save(expected_task_state=[None])  # it fails if the server is being shelved again
        return True

    def _is_due(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + _INTERVAL_SECONDS
        return True

    def _found(self) -> Iterator[tuple[str, list[str]]]:
        """Yield each instance that has exports, and their ids."""
        directory = self._directory()
        for owner in os.listdir(directory) if directory.is_dir() else ():
            with contextlib.suppress(FileNotFoundError):  # another host has removed it meanwhile
                if _INSTANCE.fullmatch(owner):
                    yield owner, [name for name in os.listdir(directory / owner) if _ID.fullmatch(name)]

    def _directory(self) -> pathlib.Path:
        if self._path is None:
            raise exception.InvalidRequest(
                what="option",
                value="[vpmem] export_path",
                reason="it is not set on this host, and the content of a shelved server's memory is in files",
                remedy="Set it to a directory that all hosts mount",
            )
        return self._path


def free_bytes(directory: pathlib.Path) -> int:
    """Return the free space of the filesystem of a directory. :raises OSError: it is not there."""
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize


def _unusable(path: pathlib.Path, reason: str) -> exception.HostToolError:
    return exception.HostToolError(
        what=f"Access to {exception.shorten(path)}",
        reason=reason,
        remedy="Check [vpmem] export_path and its filesystem",
    )


def _remove(directory: pathlib.Path) -> None:
    """Remove an export, or as much of it as possible. First it becomes incomplete."""
    with contextlib.suppress(OSError):
        (directory / manifest.FILE_NAME).unlink()
    shutil.rmtree(directory, ignore_errors=True)
    with contextlib.suppress(OSError):  # the instance has another one
        directory.parent.rmdir()


def _sync(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
