"""Carry out a plan with ndctl, if the host is as the plan saw it."""

import dataclasses
import errno
import os
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence

from oslo_config import cfg

from vpmem_driver import device_users, exception
from vpmem_driver.planning import plan as plans
from vpmem_driver.planning.inventory import Inventory, Namespace, Region
from vpmem_driver.pool import snapshot

#: ndctl may clear or scan memory; longer than that, it hangs. In seconds.
LIMIT_SECONDS = 600.0


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """A step that is to be done.

    :ivar region: its region as it is now
    """

    step: plans.Step
    region: Region
    command: Sequence[str]


def remaining(plan: plans.Plan, host: Inventory) -> list[Task]:
    """Return the steps that are not done yet, in order.

    :raises HostChanged: the host is neither as the plan saw it nor as its steps leave it
    """
    regions = {region.id: region for region in host.regions}
    done: set[str] = set()
    for planned in plan.regions:
        steps = {step.name: step for step in plan.steps if step.region == planned.dev}
        if steps:
            done |= _done(planned, steps, regions.get(planned.id))
    _check_names(plan, host)
    current = {planned.dev: regions[planned.id] for planned in plan.regions if planned.id in regions}
    tasks = []
    for step in plan.steps:
        if step.name not in done:
            region = current[step.region]
            tasks.append(Task(step, region, plans.command(step, region.dev, plan.map, plan.align)))
    _check_room(tasks)
    return tasks


def _done(planned: plans.RegionPlan, steps: Mapping[str, plans.Step], region: Region | None) -> set[str]:
    """Return the names of the steps in a region that are done."""
    if region is None or (region.size, region.align, region.node) != (planned.size, planned.align, planned.numa_node):
        raise exception.HostChanged(reason=f"{planned.dev} does not exist, or its size, alignment or node has changed")
    kept = {namespace.id: namespace for namespace in planned.namespaces}
    done: set[str] = set()
    for namespace in region.namespaces:
        before = kept.pop(namespace.identity, None)
        if before is not None:
            if (before.size, before.mode) != (namespace.size, namespace.mode):
                raise exception.HostChanged(reason=f"size or mode of {_called(namespace)} in {region.dev} has changed")
            continue
        step = steps.get(namespace.name or "")
        if step is None or step.name in done:
            raise exception.HostChanged(reason=f"{_called(namespace)} in {region.dev} is not in the plan")
        if (namespace.size, namespace.mode) != (step.size, "devdax"):
            raise exception.HostChanged(
                reason=f"{_called(namespace)} in {region.dev} has {namespace.size} bytes in mode {namespace.mode}; "
                f"the plan has {step.size} bytes in mode devdax. If a step that was interrupted made it, destroy it "
                f"with 'ndctl destroy-namespace --force {namespace.dev}'"
            )
        done.add(step.name)
    if kept:
        names = exception.listed(namespace.name or namespace.id for namespace in kept.values())
        raise exception.HostChanged(reason=f"{region.dev} no longer has {names}")
    return done


def _check_names(plan: plans.Plan, host: Inventory) -> None:
    """Check that no namespace of another region has the name of a step."""
    steps = {step.name: step.region for step in plan.steps}
    planned = {region.id: region.dev for region in plan.regions}
    for region in host.regions:
        for namespace in region.namespaces:
            owner = steps.get(namespace.name or "")
            if owner is not None and owner != planned.get(region.id):
                raise exception.HostChanged(reason=f"{_called(namespace)} in {region.dev} has the name of a step")


def _check_room(tasks: Sequence[Task]) -> None:
    for region in {task.region.id: task.region for task in tasks}.values():
        needed = sum(task.step.raw for task in tasks if task.region.id == region.id)
        if needed > region.extent:
            raise exception.HostChanged(
                reason=f"{region.dev} has {region.extent} free bytes in one piece; the plan needs {needed}"
            )


def _called(namespace: Namespace) -> str:
    return f"{namespace.dev} ({exception.shorten(namespace.name or 'without a name')})"


def check_unused(tasks: Sequence[Task], conf: cfg.ConfigOpts) -> None:
    """Check that nobody has a namespace of the regions in which something is to be done.

    :raises NamespaceInUse: an owner, a process or the kernel has one
    :raises VPMEMError: that cannot be found out
    """
    regions = {task.region.id: task.region for task in tasks}
    namespaces = [namespace for region in regions.values() for namespace in region.namespaces]
    if not namespaces:
        return
    owners = _owners(conf)
    paths = {f"/dev/{device.chardev}": ns for ns in namespaces for device in ns.devices if device.chardev}
    users = device_users.users_of(path for path in paths if os.path.exists(path))
    for namespace in namespaces:
        user = owners.get(namespace.identity) or _kernel_use(namespace)
        user = user or next((users[path] for path, ns in paths.items() if ns is namespace and path in users), None)
        if user is not None:
            raise exception.NamespaceInUse(namespace=namespace.name or namespace.dev, user=user)


def _owners(conf: cfg.ConfigOpts) -> dict[str, str]:
    """Return the owner of each namespace that the ledger holds for one."""
    now = snapshot.read(conf)
    for error in now.errors:
        if isinstance(error, exception.LedgerError):
            raise error
    return {row.uuid: row.owner for row in now.rows.values() if row.owner is not None}


def _kernel_use(namespace: Namespace) -> str | None:
    """Return what of the kernel has a namespace: system memory, a mounted filesystem, a device on top."""
    if any(device.mode == "system-ram" for device in namespace.devices):
        return "the kernel, as system memory"
    if namespace.blockdev is None:
        return None
    path = f"/dev/{namespace.blockdev}"
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_EXCL))  # exclusive: EBUSY if mounted, or below another device
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.EBUSY:
            return f"a filesystem or a device on {path}"
        raise exception.HostToolError(
            what=f"Opening {path}", reason=error.strerror or str(error), remedy="Run this as root"
        ) from error
    return None


def carry_out(plan: plans.Plan, tasks: Sequence[Task], read: Callable[[], Inventory]) -> Iterator[Task]:
    """Do the steps that remain. Yields each one before it is done; the host is read again after it.

    :param read: returns the host as it is now
    :raises HostChanged: the host is not as the step should leave it
    :raises HostToolError: ndctl failed
    """
    while tasks:
        task, *others = tasks
        yield task
        _run(task)
        tasks = remaining(plan, read())
        if len(tasks) != len(others):
            raise exception.HostChanged(reason=f"ndctl made {task.step.name}, but not as the plan has it")


def _run(task: Task) -> None:
    try:
        done = subprocess.run(
            task.command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=LIMIT_SECONDS,
            env={**os.environ, "LC_ALL": "C"},
        )
        reason = f"exit code {done.returncode}" if done.returncode else None
        if reason is not None and (said := done.stderr.decode("utf-8", "replace").strip()):
            reason = f"{reason}, {exception.printable(said.splitlines()[0])}"
    except OSError as error:
        reason = error.strerror or str(error)
    except subprocess.TimeoutExpired:
        reason = f"no end within {LIMIT_SECONDS:g} seconds"
    if reason is not None:
        raise exception.HostToolError(
            what=shlex.join(task.command),
            reason=reason,
            remedy="Look at the kernel log and at 'ndctl list --namespaces --idle'. When the cause is gone, run 'vpmem "
            "provision' again: it does the rest",
        )
