"""Steps of hosts: new servers, service restarts, periodic tasks, hosts that go down and come back."""

from novatests.walk import deployment, steps


class HostSteps(steps.Steps):
    def do_create(self):
        pmem = self.rng.choice(steps.PMEMS)
        host = self.pick_host(pmem)
        if host is None:
            return self.say("is left out")
        server = self.create(pmem, host)
        self.must_be(server, "ACTIVE")
        return self.starts_anew(server)

    def do_create_fails(self):
        pmem = self.rng.choice(steps.PMEMS)
        method = self.rng.choice(steps.GUEST_STARTS)
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
        defined = [server for server in gone if self.is_defined(server, host)]
        for server in gone:
            if server in defined:
                continue
            if server in self.servers and server.status not in steps.SETTLED:
                self.kept.append((server, name))
            else:
                self.oracle.leaves(server.id, name)
        if defined:
            self.oracle.check_bytes()  # the guest of a deleted server: not wiped before the reaper has ended it
            self.run_periodic(host)
        for server in defined:
            self.oracle.leaves(server.id, name)
        for server in [server for server in self.servers if server.host == name and server.runs and lost_power]:
            self.found(server, self.ended(server, "ACTIVE", "ERROR"))
            self.must_be(server, "ACTIVE")
            self.comes_back(server)
