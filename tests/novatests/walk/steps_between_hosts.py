"""Steps of a server from host to host: resize, migrate, live migrate, shelve, evacuate."""

from nova import objects
from nova.tests.fixtures import libvirt as fakelibvirt
from novatests.walk import oracle, steps


class BetweenHostsSteps(steps.Steps):
    def do_resize(self, server):
        pmem = self.rng.choice(steps.PMEMS)
        dest = self.pick_host(pmem)
        if dest is None or (server.unallocated and self.is_refused(server, pmem)):
            return self.say("is left out")
        return self.resize(server, pmem, dest)

    def do_migrate(self, server):
        dest = self.pick_host(server.pmem, other_than=(server.host,))
        if dest is None:
            return self.say("is left out")
        return self.resize(server, server.pmem, dest, migrate=True)

    def is_refused(self, server, pmem):
        """Whether a move would lose content: the new flavor has fewer devices. All have the same size."""
        return self.copies and len(pmem.split(",")) < len(server.pmem.split(","))

    def resize(self, server, pmem, dest, *, migrate=False):
        old_pmem, source = server.pmem, server.host
        if self.is_refused(server, pmem):
            return self.resize_is_refused(server, pmem, dest)
        blocks = self.oracle.blocks(server.id, source) if self.copies else ()
        self.ask_to_resize(server, pmem, dest, "VERIFY_RESIZE", migrate=migrate)
        self.must_be(server, "VERIFY_RESIZE")
        server.old_pmem, server.source, server.pmem = old_pmem, source, pmem
        self.oracle.sets_aside(server.id, source)
        return self.starts_anew(server, blocks)

    def resize_is_refused(self, server, pmem, dest):
        source = server.host
        self.ask_to_resize(server, pmem, dest, "ACTIVE", "SHUTOFF")
        self.must_be(server, "ACTIVE", "SHUTOFF")
        self.unsettled.update(self.hosts)
        if dest.name == source:
            server.tracked = {source: pmem.split(",")}
        if server.host != source:
            raise oracle.Wrong(f"{server.name} is on {server.host}, though its move was refused")

    def ask_to_resize(self, server, pmem, dest, *statuses, migrate=False):
        self.say(f"from {server.host} to {pmem} on {dest.name}")
        self.preferred = dest.name
        if migrate:
            shown = self.request(server, "migrate", {"host": dest.name}, *statuses)
        else:
            argument = {"flavorRef": self.flavor_of(pmem, server)}
            shown = self.request(server, "resize", argument, *statuses)
        self.found(server, shown)
        server.requested = self.requested(server)

    def requested(self, server):
        spec = objects.RequestSpec.get_by_instance_uuid(self.context, server.id)
        return spec.flavor.extra_specs["hw:pmem"]

    def pick_host_to_claim(self, server, *, other_than=()):
        """A host with room for what Nova claims, which may be another flavor than the server's."""
        server.requested = self.requested(server)
        return self.pick_host(server.requested, other_than=other_than)

    def claim_is_refused(self, server, dest, action, argument):
        """Nova claims for another flavor. The driver refuses that, and corrects Nova's request spec."""
        self.say(f"claims {server.requested}")
        source, status = server.host, server.status
        self.found(server, self.request(server, action, argument, status))
        self.must_be(server, status)
        self.unsettled.add(dest.name)
        server.requested = self.requested(server)
        if (server.host, server.requested) != (source, server.pmem):
            raise oracle.Wrong(f"{server.name} is on {server.host}, and Nova would claim {server.requested} for it")

    def do_resize_fails_at_source(self, server):
        pmem = self.rng.choice(steps.PMEMS)
        dest = self.pick_host(pmem, other_than=(server.host,))
        after = self.rng.random() < 0.5
        if dest is None:
            return self.say("is left out")
        self.say(f"{'after' if after else 'before'} migrate_disk_and_power_off")
        refused = self.is_refused(server, pmem)
        with self.failing(self.host_of(server), "migrate_disk_and_power_off", after=after):
            self.ask_to_resize(server, pmem, dest, "ACTIVE", "SHUTOFF")
        if self.copies and after and not refused:
            for host in self.up():
                if host.name != server.host:  # Nova may have had to take another one
                    self.has_copied(server, host)
        return None

    def has_copied(self, server, dest):
        """The destination has a copy that nothing will use. It releases it when the server is well at the source."""
        names = [name for name, _state, owner in oracle.read_ledger(dest.ledger) if owner == server.id]
        if names:
            self.oracle.memory[server.id, dest.name, oracle.OLD] = {dest.path(name): None for name in names}
        server.stuck = server.status == "ERROR"
        if not server.stuck:
            self.oracle.leftovers |= set(self.oracle.of(server.id, dest.name, oracle.OLD))

    def do_resize_fails_at_dest(self, server):
        pmem = self.rng.choice(steps.PMEMS)
        dest = self.pick_host(pmem, other_than=(server.host,))
        method = self.rng.choice(("finish_migration", *steps.GUEST_STARTS))
        is_partly_copied = self.copies and len(pmem.split(",")) != len(server.pmem.split(","))
        if dest is None or is_partly_copied:
            return self.say("is left out")
        source = server.host
        blocks = self.oracle.blocks(server.id, source) if self.copies else ()
        self.say(f"in {method}")
        with self.failing(dest, method):
            self.ask_to_resize(server, pmem, dest)
        self.must_be(server, "ERROR")
        self.oracle.sets_aside(server.id, source)
        server.stuck, server.pmem = True, pmem
        return self.has_claimed(server, blocks)

    def has_claimed(self, server, blocks):
        """Look up what was claimed for it where it is, before its guest could start."""
        host = self.host_of(server)
        names = [name for name, _state, owner in oracle.read_ledger(host.ledger) if owner == server.id]
        if not names:
            return
        paths, key = [host.path(name) for name in names], (server.id, host.name, oracle.NOW)
        self.oracle.memory[key] = dict(zip(paths, blocks or [None] * len(paths), strict=True))
        self.oracle.unordered.add(key)

    def do_confirm(self, server):
        self.flags(host=server.source)  # Nova compares it with the server's host, and all services share it here
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
        server.pmem = server.requested = server.old_pmem
        server.source = None

    def do_revert_fails(self, server):
        method = self.rng.choice(("destroy", "finish_revert_migration", *steps.GUEST_STARTS))
        dest = server.host
        if method != "destroy" and dest == server.source:
            server.tracked = {dest: server.pmem.split(",")}
        host = self.hosts[dest if method == "destroy" else server.source]
        self.say(f"in {method} on {host.name}")
        with self.failing(host, method):
            self.found(server, self.request(server, "revertResize", None))
        self.must_be(server, "ERROR")
        if method == "destroy":
            self.leaked[server.source] += server.old_pmem.split(",")
            server.requested = server.old_pmem
            server.stuck, server.source = True, None
        else:
            self.has_reverted(server, dest)

    def do_live_migrate(self, server):
        dest = self.pick_host_to_claim(server, other_than=(server.host,))
        if dest is None:
            return self.say("is left out")
        source = server.host
        if server.requested != server.pmem:
            argument = {"host": dest.name, "block_migration": "auto"}
            self.claim_is_refused(server, dest, "os-migrateLive", argument)
            return self.comes_back(server)
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
        source = server.host
        server.exported = self.oracle.blocks(server.id, source) if self.copies else []
        self.found(server, self.request(server, "shelve", None, "SHELVED_OFFLOADED"))
        self.must_be(server, "SHELVED_OFFLOADED")
        self.oracle.leaves(server.id, source)  # a host that it was evacuated from keeps its own until it is back

    def do_unshelve(self, server):
        dest = self.pick_host_to_claim(server)
        if dest is None:
            return self.say("is left out")
        self.say(f"on {dest.name}")
        if server.requested != server.pmem:
            return self.claim_is_refused(server, dest, "unshelve", {"host": dest.name})
        self.found(server, self.request(server, "unshelve", {"host": dest.name}, "ACTIVE"))
        self.must_be(server, "ACTIVE")
        return self.starts_anew(server, server.exported)

    def do_unshelve_fails(self, server):
        dest, method = self.pick_host(server.pmem), self.rng.choice(("spawn", *steps.GUEST_STARTS))
        if dest is None:
            return self.say("is left out")
        self.say(f"on {dest.name} in {method}")
        with self.failing(dest, method):
            self.found(server, self.request(server, "unshelve", {"host": dest.name}, "SHELVED_OFFLOADED"))
        return self.must_be(server, "SHELVED_OFFLOADED")

    def do_evacuate(self, server):
        source, dest = server.host, self.pick_host_to_claim(server)
        if dest is None:
            return self.say("is left out")
        self.say(f"from {source} to {dest.name}")
        if server.requested != server.pmem:
            return self.claim_is_refused(server, dest, "evacuate", {"host": dest.name})
        self.found(server, self.request(server, "evacuate", {"host": dest.name}, "ACTIVE", "SHUTOFF"))
        self.must_be(server, "ACTIVE", "SHUTOFF")
        self.oracle.sets_aside(server.id, source)
        self.gone[source].append(server)
        return self.starts_anew(server)

    def do_evacuate_fails(self, server):
        source, dest = server.host, self.pick_host(server.pmem)
        method = self.rng.choice(("spawn", *steps.GUEST_STARTS))
        if dest is None:
            return self.say("is left out")
        self.say(f"from {source} to {dest.name} in {method}")
        with self.failing(dest, method):
            self.found(server, self.request(server, "evacuate", {"host": dest.name}))
        self.must_be(server, "ERROR")
        if server.host != source:
            raise oracle.Wrong(f"{server.name} is on {server.host}, though its evacuation failed")
        return None
