"""What a walk may do next, and what must become of the bytes: DESIGN's life of a claim, path by path."""

from nova.tests.fixtures import libvirt as fakelibvirt
from novatests.ours import base
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

    # what guests find

    def found(self, server, shown):
        """Take over what the API says of the server."""
        server.status = shown["status"]
        server.host = shown["OS-EXT-SRV-ATTR:host"]
        server.runs = server.status == "ACTIVE" or (server.status == "VERIFY_RESIZE" and server.runs)

    def starts_anew(self, server):
        host = self.host_of(server)
        paths = self.devices(server, host)
        labels = [path.name.rstrip("0123456789").upper() for path in paths]
        if sorted(labels) != sorted(server.pmem.split(",")) or (labels != server.pmem.split(",") and not server.stuck):
            raise oracle.Wrong(f"{server.name} asks for {server.pmem} and gets {labels}")
        self.oracle.starts_anew(server.id, host.name, paths, runs=server.runs)

    def comes_back(self, server):
        host = self.host_of(server)
        self.oracle.comes_back(server.id, host.name, self.devices(server, host), runs=server.runs)

    def forget(self, server):
        """It is deleted: what it has must be released, on a host that is down as soon as that is back."""
        self.servers.remove(server)
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

    # hosts

    def do_create(self):
        pmem = self.rng.choice(PMEMS)
        host = self.pick_host(pmem)
        if host is None:
            return self.say("is left out")
        server = self.create(pmem, host)
        self.must_be(server, "ACTIVE")
        return self.starts_anew(server)

    def do_create_fails(self):
        pmem = self.rng.choice(PMEMS)
        method = self.rng.choice(GUEST_STARTS)
        host = self.pick_host(pmem)
        if host is None:
            return self.say("is left out")
        self.say(f"in {method}")
        with self.failing(host, method):
            server = self.create(pmem, host)
        self.must_be(server, "ERROR")
        self.delete(server)
        return self.servers.remove(server)

    def create(self, pmem, host):
        self.count += 1
        name = f"server{self.count}"
        self.say(f"{name} with {pmem} on {host.name}")
        body = self._build_server(name=name, flavor_id=self.flavor_of(pmem), networks="none", host=host.name)
        server = deployment.Server(name, self.api.post_server({"server": body})["id"], pmem)
        self.names[server.id] = name
        self.servers.append(server)
        self.found(server, self.ended(server, "ACTIVE", "ERROR"))
        return server

    def do_restart(self):
        host = self.rng.choice(self.up())
        self.say(host.name)
        self.restart_host(host)

    def do_periodic(self):
        host = self.rng.choice(self.up())
        self.say(host.name)
        self.run_periodic(host)

    def run_periodic(self, host):
        super().run_periodic(host)
        for key in [key for key in self.oracle.leftovers if key[1] == host.name]:
            self.oracle.leaves(*key)

    def do_take_down(self):
        host = self.rng.choice(self.idle_hosts())
        power = self.rng.random() < 0.5 and not any(s.status in {"PAUSED", "SUSPENDED"} for s in self.servers)
        self.say(f"{host.name}{', power too' if power else ''}")
        self.take_down(host, power=power)
        self.down.add(host.name)
        if power:
            self.lost_power.add(host.name)

    def do_bring_back(self):
        (name,) = self.down
        self.say(name)
        self.bring_back_host(name)

    def bring_back_host(self, name):
        host, lost_power = self.hosts[name], name in self.lost_power
        self.bring_back(host)
        self.down.discard(name)
        self.lost_power.discard(name)
        gone = self.gone.pop(name, ())
        if any(self.is_defined(server, host) for server in gone):
            self.oracle.check_bytes()  # the guest of a deleted server: not wiped before the reaper has ended it
            self.run_periodic(host)
        for server in gone:
            self.oracle.leaves(server.id, name)
        for server in [server for server in self.servers if server.host == name and server.runs and lost_power]:
            self.found(server, self.ended(server, "ACTIVE", "ERROR"))
            self.must_be(server, "ACTIVE")
            self.comes_back(server)

    # one server, where it is

    def do_delete(self, server):
        self.delete(server)
        self.forget(server)

    def do_delete_fails(self, server):
        method = self.rng.choice(("destroy", "_undefine_domain"))
        self.say(f"in {method}")
        with self.failing(self.host_of(server), method):
            gone = self.delete(server)
        if gone:
            return self.forget(server)
        self.found(server, self.ended(server, "ERROR"))
        if method == "destroy":
            return None
        self.oracle.leaves(server.id)
        self.delete(server)
        return self.forget(server)

    def do_delete_while_wipe_fails(self, server):
        host = self.host_of(server)
        path = self.devices(server, host)[0]
        with self.held_open(path):
            self.delete(server)
            self.forget(server)
            self.check()
        self.run_periodic(host)

    def do_stop(self, server):
        self.found(server, self.request(server, "os-stop", None, "SHUTOFF"))
        self.must_be(server, "SHUTOFF")

    def do_start(self, server):
        server.runs = True
        self.found(server, self.request(server, "os-start", None, "ACTIVE"))
        self.must_be(server, "ACTIVE")
        self.comes_back(server)

    def do_start_fails(self, server):
        self.guest_fails(server, "os-start", None)

    def do_soft_reboot(self, server):
        self.found(server, self.request(server, "reboot", {"type": "SOFT"}, "ACTIVE"))
        self.comes_back(server)

    def do_hard_reboot(self, server):
        self.found(server, self.request(server, "reboot", {"type": "HARD"}, "ACTIVE"))
        self.must_be(server, "ACTIVE")
        if self.oracle.of(server.id, server.host, oracle.NOW):
            self.comes_back(server)
        else:
            self.starts_anew(server)  # its migration failed before it had any
        self.is_well(server)

    def is_well(self, server):
        """What a migration that failed has left behind may go now."""
        self.oracle.leftovers |= set(self.oracle.of(server.id, kind=oracle.OLD)) if server.stuck else set()

    def do_hard_reboot_fails(self, server):
        self.guest_fails(server, "reboot", {"type": "HARD"})

    def guest_fails(self, server, action, argument):
        """A start that fails: all is kept."""
        method = self.rng.choice(("destroy", *GUEST_STARTS))
        self.say(f"in {method}")
        with self.failing(self.host_of(server), method):
            self.found(server, self.request(server, action, argument, "ACTIVE", "SHUTOFF", "SUSPENDED"))
        if server.status == "ACTIVE" and method != "destroy":
            self.found(server, self.request(server, "reboot", {"type": "HARD"}, "ACTIVE"))
            self.must_be(server, "ACTIVE")
            self.comes_back(server)

    def do_pause(self, server):
        self.found(server, self.request(server, "pause", None, "PAUSED"))

    def do_unpause(self, server):
        self.found(server, self.request(server, "unpause", None, "ACTIVE"))
        self.comes_back(server)

    def do_suspend(self, server):
        self.found(server, self.request(server, "suspend", None, "SUSPENDED"))

    def do_resume(self, server):
        self.found(server, self.request(server, "resume", None, "ACTIVE"))
        self.must_be(server, "ACTIVE")
        self.comes_back(server)

    def do_resume_fails(self, server):
        method = self.rng.choice(("_create_guest", "_create_guest_with_network"))
        self.say(f"in {method}")
        with self.failing(self.host_of(server), method):
            self.found(server, self.request(server, "resume", None, "SUSPENDED"))

    def do_rebuild(self, server):
        was = "SHUTOFF" if server.status == "SHUTOFF" else "ACTIVE"
        self.found(server, self.request(server, "rebuild", {"imageRef": base.IMAGE}, was))
        self.must_be(server, was)
        self.rebuilt(server)

    def do_rebuild_fails(self, server):
        method = self.rng.choice(("destroy", "spawn", *GUEST_STARTS))
        self.say(f"in {method}")
        with self.failing(self.host_of(server), method):
            self.found(server, self.request(server, "rebuild", {"imageRef": base.IMAGE}))
        self.must_be(server, "ERROR")
        if method != "destroy":
            memory = self.oracle.memory[server.id, server.host, oracle.NOW]
            memory.update(dict.fromkeys(memory))

    def rebuilt(self, server):
        had = self.oracle.memory.get((server.id, server.host, oracle.NOW))
        paths = self.devices(server, self.host_of(server))
        if had is not None and set(had) != set(paths):
            raise oracle.Wrong(f"{server.name} is rebuilt, had {sorted(had)} and has {paths}")
        self.starts_anew(server)
        self.is_well(server)

    # from host to host

    def do_resize(self, server):
        pmem = self.rng.choice(PMEMS)
        dest = self.pick_host(pmem)
        if dest is None:
            return self.say("is left out")
        return self.resize(server, pmem, dest)

    def do_migrate(self, server):
        dest = self.pick_host(server.pmem, other_than=(server.host,))
        if dest is None:
            return self.say("is left out")
        return self.resize(server, server.pmem, dest, migrate=True)

    def resize(self, server, pmem, dest, *, migrate=False):
        old_pmem, source = server.pmem, server.host
        self.ask_to_resize(server, pmem, dest, "VERIFY_RESIZE", migrate=migrate)
        self.must_be(server, "VERIFY_RESIZE")
        server.old_pmem, server.source, server.pmem = old_pmem, source, pmem
        self.oracle.sets_aside(server.id, source)
        self.starts_anew(server)

    def ask_to_resize(self, server, pmem, dest, *statuses, migrate=False):
        self.say(f"from {server.host} to {pmem} on {dest.name}")
        self.preferred = dest.name
        if migrate:
            shown = self.request(server, "migrate", {"host": dest.name}, *statuses)
        else:
            argument = {"flavorRef": self.flavor_of(pmem, server.pmem)}
            shown = self.request(server, "resize", argument, *statuses)
        self.found(server, shown)

    def do_resize_fails_at_source(self, server):
        pmem = self.rng.choice(PMEMS)
        dest = self.pick_host(pmem, other_than=(server.host,))
        after = self.rng.random() < 0.5
        if dest is None:
            return self.say("is left out")
        self.say(f"{'after' if after else 'before'} migrate_disk_and_power_off")
        with self.failing(self.host_of(server), "migrate_disk_and_power_off", after=after):
            self.ask_to_resize(server, pmem, dest, "ACTIVE", "SHUTOFF")
        return None

    def do_resize_fails_at_dest(self, server):
        pmem = self.rng.choice(PMEMS)
        dest = self.pick_host(pmem, other_than=(server.host,))
        method = self.rng.choice(("finish_migration", *GUEST_STARTS))
        if dest is None:
            return self.say("is left out")
        source = server.host
        self.say(f"in {method}")
        with self.failing(dest, method):
            self.ask_to_resize(server, pmem, dest)
        self.must_be(server, "ERROR")
        self.oracle.sets_aside(server.id, source)
        server.stuck, server.pmem = True, pmem
        return self.has_claimed(server)

    def has_claimed(self, server):
        """Look up what was claimed for it where it is, before its guest could start."""
        host = self.host_of(server)
        names = sorted(name for name, _state, owner in oracle.read_ledger(host.ledger) if owner == server.id)
        if names:
            self.oracle.memory[server.id, host.name, oracle.NOW] = {host.path(name): None for name in names}

    def do_confirm(self, server):
        self.found(server, self.request(server, "confirmResize", None, "ACTIVE", "SHUTOFF"))
        self.must_be(server, "ACTIVE", "SHUTOFF")
        self.oracle.leaves(server.id, server.source, oracle.OLD)
        server.source = None

    def do_revert(self, server):
        dest = server.host
        self.found(server, self.request(server, "revertResize", None, "ACTIVE", "SHUTOFF"))
        self.must_be(server, "ACTIVE", "SHUTOFF")
        self.has_reverted(server, dest)
        self.comes_back(server)

    def has_reverted(self, server, dest):
        self.oracle.leaves(server.id, dest, oracle.NOW)
        self.oracle.returns(server.id, server.source)
        server.pmem, server.source = server.old_pmem, None

    def do_revert_fails(self, server):
        method = self.rng.choice(("destroy", "finish_revert_migration", *GUEST_STARTS))
        dest = server.host
        server.tracked = {dest: server.pmem.split(",")}
        host = self.hosts[dest if method == "destroy" else server.source]
        self.say(f"in {method} on {host.name}")
        with self.failing(host, method):
            self.found(server, self.request(server, "revertResize", None))
        self.must_be(server, "ERROR")
        if method == "destroy":
            server.stuck, server.source = True, None
        else:
            self.has_reverted(server, dest)

    def do_live_migrate(self, server):
        dest = self.pick_host(server.pmem, other_than=(server.host,))
        if dest is None:
            return self.say("is left out")
        source = server.host
        self.live_migrate(server, dest)
        if server.host != dest.name or self.failed(server):
            raise oracle.Wrong(f"{server.name} has not moved to {dest.name}")
        self.start_migrated(server, dest)
        return self.oracle.moves(server.id, source, dest.name, self.devices(server, dest))

    def live_migrate(self, server, dest):
        self.say(f"from {server.host} to {dest.name}")
        argument = {"host": dest.name, "block_migration": "auto"}
        domain = self.connection(self.host_of(server)).lookupByUUIDString(server.id)
        domain._job_type = fakelibvirt.VIR_DOMAIN_JOB_NONE  # or an earlier migration that failed fails this one
        self.found(server, self.request(server, "os-migrateLive", argument, "ACTIVE"))

    def do_live_migrate_fails(self, server):
        dest = self.pick_host(server.pmem, other_than=(server.host,))
        points = ("check_can_live_migrate_destination", "pre_live_migration", "libvirt")
        method, after = self.rng.choice(points), self.rng.random() < 0.5
        if dest is None:
            return self.say("is left out")
        source = server.host
        self.say(f"{'after' if after else 'before'} {method}")
        if method == "libvirt":
            self.migration_fails = True
            self.live_migrate(server, dest)
            self.migration_fails = False
        else:
            with self.failing(dest, method, after=after):
                self.live_migrate(server, dest)
        if server.host != source:
            raise oracle.Wrong(f"{server.name} is on {server.host}, though its migration failed")
        return self.comes_back(server)

    def do_shelve(self, server):
        self.found(server, self.request(server, "shelve", None, "SHELVED_OFFLOADED"))
        self.must_be(server, "SHELVED_OFFLOADED")
        self.oracle.leaves(server.id)

    def do_unshelve(self, server):
        dest = self.pick_host(server.pmem)
        if dest is None:
            return self.say("is left out")
        self.say(f"on {dest.name}")
        self.found(server, self.request(server, "unshelve", {"host": dest.name}, "ACTIVE"))
        self.must_be(server, "ACTIVE")
        return self.starts_anew(server)

    def do_unshelve_fails(self, server):
        dest, method = self.pick_host(server.pmem), self.rng.choice(("spawn", *GUEST_STARTS))
        if dest is None:
            return self.say("is left out")
        self.say(f"on {dest.name} in {method}")
        with self.failing(dest, method):
            self.found(server, self.request(server, "unshelve", {"host": dest.name}, "SHELVED_OFFLOADED"))
        return self.must_be(server, "SHELVED_OFFLOADED")

    def do_evacuate(self, server):
        source, dest = server.host, self.pick_host(server.pmem)
        if dest is None:
            return self.say("is left out")
        self.say(f"from {source} to {dest.name}")
        self.found(server, self.request(server, "evacuate", {"host": dest.name}, "ACTIVE", "SHUTOFF"))
        self.must_be(server, "ACTIVE", "SHUTOFF")
        self.oracle.sets_aside(server.id, source)
        self.gone[source].append(server)
        return self.starts_anew(server)

    def do_evacuate_fails(self, server):
        source, dest = server.host, self.pick_host(server.pmem)
        method = self.rng.choice(("spawn", *GUEST_STARTS))
        if dest is None:
            return self.say("is left out")
        self.say(f"from {source} to {dest.name} in {method}")
        with self.failing(dest, method):
            self.found(server, self.request(server, "evacuate", {"host": dest.name}))
        self.must_be(server, "ERROR")
        if server.host != source:
            raise oracle.Wrong(f"{server.name} is on {server.host}, though its evacuation failed")
        return None
