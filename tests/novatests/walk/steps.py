"""What a walk may do next, and what must become of the bytes: DESIGN's life of a claim, path by path."""

from novatests.walk import deployment, oracle

PMEMS = ("SMALL", "BIG", "SMALL,SMALL", "BIG,SMALL")

#: step -> how often it is chosen, and the states of a server that it is for; none: it is for a host.
STEPS = {
    "create": (30, ()),
    "create_fails": (2, ()),
    "restart": (3, ()),
    "periodic": (3, ()),
    "take_down": (3, ()),
    "bring_back": (6, ()),
    "delete": (3, ("ACTIVE", "SHUTOFF", "ERROR", "VERIFY_RESIZE", "SHELVED_OFFLOADED", "PAUSED", "SUSPENDED")),
    "delete_fails": (1, ("ACTIVE", "SHUTOFF")),
    "delete_while_wipe_fails": (1, ("ACTIVE", "SHUTOFF")),
    "stop": (3, ("ACTIVE",)),
    "start": (6, ("SHUTOFF",)),
    "start_fails": (3, ("SHUTOFF",)),
    "soft_reboot": (1, ("ACTIVE",)),
    "hard_reboot": (3, ("ACTIVE", "SHUTOFF", "ERROR", "PAUSED")),
    "hard_reboot_fails": (2, ("ACTIVE", "SHUTOFF")),
    "pause": (1, ("ACTIVE",)),
    "unpause": (4, ("PAUSED",)),
    "suspend": (1, ("ACTIVE",)),
    "resume": (4, ("SUSPENDED",)),
    "resume_fails": (3, ("SUSPENDED",)),
    "rebuild": (3, ("ACTIVE", "SHUTOFF", "ERROR")),
    "rebuild_fails": (2, ("ACTIVE", "SHUTOFF")),
    "resize": (4, ("ACTIVE", "SHUTOFF")),
    "migrate": (4, ("ACTIVE", "SHUTOFF")),
    "resize_fails_at_source": (2, ("ACTIVE", "SHUTOFF")),
    "resize_fails_at_dest": (2, ("ACTIVE", "SHUTOFF")),
    "confirm": (8, ("VERIFY_RESIZE",)),
    "revert": (8, ("VERIFY_RESIZE",)),
    "revert_fails": (4, ("VERIFY_RESIZE",)),
    "live_migrate": (4, ("ACTIVE",)),
    "live_migrate_fails": (3, ("ACTIVE",)),
    "shelve": (3, ("ACTIVE", "SHUTOFF")),
    "unshelve": (6, ("SHELVED_OFFLOADED",)),
    "unshelve_fails": (3, ("SHELVED_OFFLOADED",)),
    "evacuate": (12, ("ACTIVE", "SHUTOFF", "ERROR")),
    "evacuate_fails": (6, ("ACTIVE", "SHUTOFF", "ERROR")),
}

#: What a server may still do after a migration of it has failed at its end.
STUCK = {"hard_reboot", "delete", "rebuild", "stop", "start"}

#: They fail in another way while Nova's request spec has another flavor.
CLAIMS_THAT_FAIL = {"unshelve_fails", "evacuate_fails", "live_migrate_fails"}

#: With these, a server is where it was. Nova leaves one that had no allocation before allocated at the destination.
RETURNS = {"live_migrate_fails", "resize_fails_at_source", "revert", "revert_fails"}

#: In these, a server needs nothing on a host that it has left.
SETTLED = {"ACTIVE", "SHUTOFF", "SHELVED_OFFLOADED"}

#: Where the start of a guest can fail.
GUEST_STARTS = ("_get_guest_xml", "_create_guest_with_network", "plug_vifs", "_create_guest")


class Steps(deployment.Deployment):
    """One method for each step. Each leaves the oracle with what must be true."""

    most_servers = 4

    def choices(self):
        """Each step that can be done now, with its server; None for a step of a host."""
        can = {
            "create": len(self.servers) < self.most_servers,
            "create_fails": True,
            "restart": True,
            "periodic": True,
            "take_down": not self.down and bool(self.idle_hosts()),
            "bring_back": bool(self.down),
        }
        hosts = [(step, None) for step, possible in can.items() if possible]
        return hosts + [(step, server) for server in self.servers for step in STEPS if self.can(step, server)]

    def can(self, step, server):
        """Whether `step` can be done to `server`."""
        if server.status not in STEPS[step][1] or (server.stuck and step not in STUCK):
            return False
        if server.source is not None and self.down & {server.source, server.host}:
            return False
        if step in CLAIMS_THAT_FAIL and server.requested != server.pmem:
            return False
        if step in RETURNS and server.unallocated:
            return False
        if step.startswith("evacuate"):
            return server.host in self.down
        return server.host not in self.down or step == "delete"

    # which hosts

    def up(self):
        return [host for name, host in sorted(self.hosts.items()) if name not in self.down]

    def idle_hosts(self):
        """The hosts that no resize waits for."""
        busy = {name for server in self.servers if server.source for name in (server.host, server.source)}
        return [host for host in self.up() if host.name not in busy]

    def has_room(self, host, pmem):
        owned = self.oracle.owners(host.name)
        free = dict(deployment.LABELS)
        for name in owned:
            free[name.rstrip("0123456789").upper()] -= 1
        for server in self.servers:
            for label in server.tracked.get(host.name, ()):
                free[label] -= 1
            if server.host == host.name and not self.oracle.of(server.id, host.name, oracle.NOW):
                for label in server.pmem.split(","):  # it has its allocation in Placement, and has claimed nothing yet
                    free[label] -= 1
        # When a revert fails on the destination, Nova never gives back what the migration has in Placement for the
        # source, not even when the server is deleted ('nova-manage placement audit' finds it). The driver has no say.
        for label in self.leaked[host.name]:
            free[label] -= 1
        return all(free[label] >= pmem.split(",").count(label) for label in set(pmem.split(",")))

    def pick_host(self, pmem, *, other_than=()):
        """A host with room; None when there is none."""
        hosts = [host for host in self.up() if host.name not in other_than and self.has_room(host, pmem)]
        if not hosts:
            return None
        host = self.rng.choice(hosts)
        if host.name in self.unsettled:
            self.run_periodic(host)
            self.unsettled.discard(host.name)
        return host

    def host_of(self, server):
        return self.hosts[server.host]

    def kept_may_go(self):
        """What a host has kept because the server was in between may go when that is settled."""
        for server, name in [(server, name) for server, name in self.kept if server.status in SETTLED]:
            self.kept.remove((server, name))
            self.oracle.leftovers |= set(self.oracle.of(server.id, name, oracle.OLD))

    def run_periodic(self, host):
        self.kept_may_go()
        super().run_periodic(host)
        for key in [key for key in self.oracle.leftovers if key[1] == host.name]:
            self.oracle.leaves(*key)

    # what guests find

    def found(self, server, shown):
        """Take over what the API says of the server."""
        server.status = shown["status"]
        host = shown["OS-EXT-SRV-ATTR:host"]
        if None not in {server.host, host} and server.host != host:
            self.unsettled.update(self.hosts)
        server.host = host
        server.runs = server.status == "ACTIVE" or (server.status == "VERIFY_RESIZE" and server.runs)

    def starts_anew(self, server, blocks=()):
        host = self.host_of(server)
        paths = self.devices(server, host)
        labels = [path.name.rstrip("0123456789").upper() for path in paths]
        if sorted(labels) != sorted(server.pmem.split(",")) or (labels != server.pmem.split(",") and not server.stuck):
            raise oracle.Wrong(f"{server.name} asks for {server.pmem} and gets {labels}")
        self.oracle.starts_anew(server.id, host.name, paths, runs=server.runs, blocks=blocks)

    def comes_back(self, server):
        host = self.host_of(server)
        self.oracle.comes_back(server.id, host.name, self.devices(server, host), runs=server.runs)

    def forget(self, server):
        """It is deleted: what it has must be released, on a host that is down as soon as that is back."""
        self.servers.remove(server)
        if server.source is not None:
            self.unsettled.update(self.hosts)
        for key in self.oracle.of(server.id):
            if key[1] in self.down:
                self.gone[key[1]].append(server)
                continue
            self.oracle.leaves(*key)
            if key[1] != server.host:
                self.run_periodic(self.hosts[key[1]])

    def must_be(self, server, *statuses):
        if server.status not in statuses:
            fault = self.api.get_server(server.id).get("fault", {}).get("message")
            raise oracle.Wrong(f"{server.name} is {server.status}, not {' or '.join(statuses)}: {fault}")

    def is_well(self, server):
        """What a migration that failed has left behind may go now."""
        self.oracle.leftovers |= set(self.oracle.of(server.id, kind=oracle.OLD)) if server.stuck else set()
