"""Three compute hosts and what a walk does to them: requests, failures, and hosts that go down and come back."""

import contextlib
import tempfile
import time
from unittest import mock

import fixtures
import nova.tests.functional  # noqa: F401  first of Nova's: it patches with eventlet, or forbids it
from nova import context, exception, objects
from nova.scheduler import manager as scheduler
from nova.tests.fixtures import libvirt as fakelibvirt
from nova.tests.functional.api import client
from novatests.ours import base

#: Labels, and how many namespaces each host has of them.
LABELS = {"SMALL": 3, "BIG": 2}

#: Migrations in one of these have not ended.
_MIGRATES = {"accepted", "confirming", "migrating", "post-migrating", "pre-migrating", "preparing", "queued"} | {
    "reverting",
    "running",
}

_SECONDS = 300

#: How long to wait before looking again: the first time, and at most.
_LOOK_SECONDS, _LOOK_SECONDS_MOST = 0.1, 0.5


class Server:
    """What the walk knows of one server.

    :ivar host: where it is; None while it is offloaded
    :ivar pmem: the labels of its flavor, comma-separated
    :ivar source: the host it leaves, before a resize is confirmed
    :ivar old_pmem: the labels that it had there
    :ivar stuck: a migration failed at its end: it can be started, rebuilt or deleted where it is
    :ivar unallocated: a rebuild of it failed, and Nova deleted what it had in Placement
    :ivar runs: whether its guest runs
    :ivar tracked: host -> labels that Nova's resource tracker counts there, though ledger and Placement have them free.
        When a resize on one host is refused, or its revert fails, its migration is in error, and its context stays.
        With each periodic update the tracker applies that context to the instance it has read
        (ResourceTracker._update_available_resource): it counts what the instance would have after the resize, not what
        it has. So nobody gets these namespaces until the context is dropped. Nor does anybody get what the instance
        has: the tracker counts that as free, but our driver offers only what the ledger has free.
    """

    def __init__(self, name, uuid, pmem):
        self.name = name
        self.id = uuid
        self.pmem = pmem
        self.host = None
        self.status = None
        self.source = None
        self.old_pmem = None
        self.stuck = False
        self.unallocated = False
        #: what Nova's request spec has: another flavor than the server's after a resize that failed
        self.requested = pmem
        #: what its guest had in its devices when it was shelved
        self.exported = []
        self.runs = False
        self.tracked = {}

    def __getitem__(self, key):
        """Nova's helpers want the dict of the API."""
        return {"id": self.id}[key]


class Deployment(base.VPMEMTestCase):
    #: whether the content goes with a server that moves, and comes back when it is unshelved
    copies = False

    def setUp(self):
        # On a slow machine no service counts as down because it reports late, and (below) no call is given up.
        self.flags(report_interval=600, service_down_time=3600)
        super().setUp()
        self.flags(allow_resize_to_same_host=True, resume_guests_state_on_host_boot=True, shelved_offload_time=0)
        self.flags(export_path=tempfile.mkdtemp(dir=self.root), group="vpmem")
        self.flags(on_move="copy" if self.copies else "discard", group="vpmem")
        self.flags(on_shelve="export" if self.copies else "discard", group="vpmem")
        self.flags(running_deleted_instance_timeout=0)
        self.flags(rpc_response_timeout=600)
        self.useFixture(fixtures.MonkeyPatch("nova.tests.fixtures.libvirt.Domain.migrateToURI3", self._migrate))
        self.useFixture(fixtures.MockPatch("nova.virt.libvirt.LibvirtDriver.snapshot"))
        # fakelibvirt wants an argument that libvirt does not; Nova deletes a suspended server without it.
        remove = "nova.tests.fixtures.libvirt.Domain.managedSaveRemove"
        self.useFixture(fixtures.MonkeyPatch(remove, lambda _domain, flags=0: flags))
        self.context = context.get_admin_context()
        self.preferred = None
        self._prefer()
        self.migration_fails = False
        self.flavors = {}
        for index in (1, 2, 3):
            host = self.start_host(index, **LABELS)
            host.ledger = host.state_path / "ledger.sqlite3"

    def _prefer(self):
        """Have the scheduler take `preferred` where the API takes no host, so that a walk can be repeated."""
        original = scheduler.SchedulerManager._get_sorted_hosts

        def sort(manager, *args):
            return sorted(original(manager, *args), key=lambda state: (state.host != self.preferred, state.host))

        self.useFixture(fixtures.MockPatchObject(scheduler.SchedulerManager, "_get_sorted_hosts", sort))

    def _migrate(self, domain, destination, params, flags):
        if self.migration_fails:
            domain.fail_job()
            return
        server = {"id": domain.UUIDString()}
        (source,) = (host for host in self.hosts.values() if self.connection(host) is domain._connection)
        dest = self.hosts[destination.split("//")[1].split("/")[0]]
        self.connection(dest).defineXML(params["destination_xml"]).create()  # VIR_MIGRATE_PERSIST_DEST
        for old, new in zip(self.devices(server, source), self.devices(server, dest), strict=True):
            new.write_bytes(old.read_bytes())  # as QEMU does
        domain.complete_job()

    # requests

    def flavor_of(self, pmem, server=None):
        """A flavor that asks for `pmem`; another one than `server` has."""
        current = None if server is None else self._find(server, "flavor").flavor.flavorid
        flavors = self.flavors.setdefault(pmem, [])
        if all(flavor == current for flavor in flavors):
            flavors.append(self.flavor(pmem))
        return next(flavor for flavor in flavors if flavor != current)

    def request(self, server, action, argument, *statuses):
        """Ask for `action` and wait until Nova has ended it; returns what the API says of the server then."""
        self.api.post_server_action(server.id, {action: argument})
        return self.ended(server, *statuses, "ERROR")

    def ended(self, server, *statuses):
        shown = {}

        def has_ended():
            if self._is_busy(server):
                return False
            shown.update(self.api.get_server(server.id))
            return shown["status"] in statuses and shown["OS-EXT-STS:task_state"] is None

        self.wait_until(
            has_ended,
            lambda: f"{server.name} {' or '.join(statuses)}: {_state(shown)}; busy: {self._busy_with(server)}",
        )
        return shown

    def _is_busy(self, server):
        """Whether Nova still does something with it. Asks the database: it is asked often, and the API is slow."""
        return bool(self._busy_with(server))

    def _busy_with(self, server):
        """The task, the migrations, or the events of the newest action that have not ended."""
        instance = self._find(server)
        if instance is None:
            return []  # no host is chosen yet, or none was found: the API says which
        if instance.task_state is not None:
            return [instance.task_state]
        if migrations := self._migrations(server):
            return migrations
        actions = objects.InstanceActionList.get_by_instance_uuid(self.context, server.id)[:1]  # the newest
        events = [
            event
            for action in actions
            for event in objects.InstanceActionEventList.get_by_action(self.context, action.id)
        ]
        # A request that Nova schedules again has events of one name for each host, and Nova ends only one of them.
        ended = {event.event for event in events if event.result is not None}
        return [event.event for event in events if event.event not in ended]

    def _find(self, server, *attributes):
        try:
            return objects.Instance.get_by_uuid(self.context, server.id, expected_attrs=attributes)
        except exception.InstanceNotFound:
            return None

    def _migrations(self, server):
        migrations = objects.MigrationList.get_by_filters(self.context, {"instance_uuid": server.id})
        return [f"migration {one.id} {one.status}" for one in migrations if one.status.lower() in _MIGRATES]

    def failed(self, server):
        """Whether the last action on the server has failed."""
        action = self.api.get_instance_actions(server.id)[0]
        events = self.api.get_instance_action_details(server.id, action["request_id"])["events"]
        return action["message"] is not None or any((event["result"] or "").lower() == "error" for event in events)

    def delete(self, server):
        """Delete it and wait until it is gone; False when it is in error instead."""
        self.api.delete_server(server.id)
        gone = []

        def has_ended():
            if (instance := self._find(server)) is not None and instance.task_state is not None:
                return False
            try:
                shown = self.api.get_server(server.id)
            except client.OpenStackApiNotFoundException:
                gone.append(True)
                return True
            return server.status != "ERROR" and shown["status"] == "ERROR" and shown["OS-EXT-STS:task_state"] is None

        self.wait_until(has_ended, lambda: f"{server.name} deleted")
        return bool(gone)

    def wait_until(self, condition, what, seconds=_SECONDS):
        deadline, pause = time.monotonic() + seconds, _LOOK_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                self.fail(f"waited {seconds} s for {what()}")
            time.sleep(pause)
            pause = min(2 * pause, _LOOK_SECONDS_MOST)

    # hosts

    def connection(self, host):
        return self.computes[host.name].driver._host.get_connection()

    @contextlib.contextmanager
    def failing(self, host, method, *, after=False):
        """The driver's `method` raises on `host`, at its begin or, with `after`, at its end."""
        driver = self.computes[host.name].driver
        original = getattr(driver, method)

        def fail(*args, **kwargs):
            if after:
                original(*args, **kwargs)
            raise exception.NovaException(f"{method} fails on {host.name}")

        with mock.patch.object(driver, method, side_effect=fail) as patched:
            yield patched

    def take_down(self, host, *, power):
        """Stop nova-compute there; with `power`, libvirt and the guests as well."""
        self.computes[host.name].stop()
        if power:
            for domain in self.connection(host).listAllDomains(fakelibvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
                domain.destroy()
        self._force_down(host, down=True)

    def bring_back(self, host):
        self.restart_host(host)
        self._force_down(host, down=False)  # Nova refuses it before the host has seen what was evacuated

    def _force_down(self, host, *, down):
        service = self.api.get_services(binary="nova-compute", host=host.name)[0]
        self.api.put_service_force_down(service["id"], down)

    def run_periodic(self, host):
        """What Nova runs each minute."""
        manager = self.computes[host.name].manager
        manager._cleanup_running_deleted_instances(context.get_admin_context())
        manager.update_available_resource(context.get_admin_context())

    def guests(self, host):
        """The files of each running guest on `host`, by the uuid of its server."""
        domains = self.connection(host).listAllDomains(fakelibvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
        servers = [domain.UUIDString() for domain in domains]
        return {server: self.devices({"id": server}, host) for server in servers}

    def start_migrated(self, server, host):
        """fakelibvirt forgets that a guest runs when Nova defines it on the destination."""
        domain = self.connection(host).lookupByUUIDString(server.id)
        if not domain.isActive():
            domain.create()

    def is_defined(self, server, host):
        return any(domain.UUIDString() == server.id for domain in self.connection(host)._vms.values())

    def placement_of(self, host):
        """resource class -> total, reserved and used, of the labels."""
        provider = self.compute_rp_uuids[host.name]
        used = self._get_provider_usages(provider)
        return {
            name: (inventory["total"], inventory["reserved"], used.get(name, 0))
            for name, inventory in self._get_provider_inventory(provider).items()
            if name.startswith("CUSTOM_PMEM")
        }


def _state(shown):
    keys = ("status", "OS-EXT-STS:task_state", "OS-EXT-STS:vm_state", "OS-EXT-SRV-ATTR:host")
    return ", ".join(f"{key}={shown.get(key)}" for key in keys)
