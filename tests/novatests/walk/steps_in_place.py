"""Steps of a server that stays on its host: delete, stop, start, reboot, pause, suspend, rebuild."""

from novatests.ours import base
from novatests.walk import oracle, steps


class InPlaceSteps(steps.Steps):
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
        self.oracle.leaves(server.id, server.host)
        self.delete(server)
        return self.forget(server)

    def do_delete_while_wipe_fails(self, server):
        host = self.host_of(server)
        path = next(iter(self.oracle.memory[server.id, host.name, oracle.NOW]))
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

    def do_hard_reboot_fails(self, server):
        self.guest_fails(server, "reboot", {"type": "HARD"})

    def guest_fails(self, server, action, argument):
        """A start that fails: all is kept."""
        method = self.rng.choice(("destroy", *steps.GUEST_STARTS))
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
        method = self.rng.choice(("destroy", "spawn", *steps.GUEST_STARTS))
        self.say(f"in {method}")
        with self.failing(self.host_of(server), method):
            self.found(server, self.request(server, "rebuild", {"imageRef": base.IMAGE}))
        self.must_be(server, "ERROR")
        server.unallocated = True
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
