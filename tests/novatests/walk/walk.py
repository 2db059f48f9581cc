"""A random walk over Nova's API. Its seed repeats it; VPMEM_STEPS says how many steps it has."""

import collections
import os
import random

from novatests.ours import base
from novatests.walk import mutants, oracle, steps, steps_between_hosts, steps_in_place, steps_of_hosts
from testtools import content

STEPS = int(os.environ.get("VPMEM_STEPS", "25"))

#: How long the ledger may be behind what the API says: Nova ends some things after it has said so.
_SETTLES_SECONDS = 60

#: How many times as often as others a step is chosen that shows a deliberate mistake.
_FAVOUR = 20


class Walk(steps_of_hosts.HostSteps, steps_in_place.InPlaceSteps, steps_between_hosts.BetweenHostsSteps):
    #: set before it runs
    seed = 0
    mutant = None
    #: steps that are chosen more often
    favoured = ()

    def setUp(self):
        mutants.apply(self, self.mutant)
        self.copies = self.seed % 2 == 0
        super().setUp()
        self.servers, self.names, self.count, self.trace = [], {}, 0, []
        #: host -> the labels for which Placement keeps an allocation of a migration that nobody will end: see steps.py
        self.leaked = collections.defaultdict(list)
        self.down, self.lost_power, self.gone = set(), set(), collections.defaultdict(list)
        #: servers that were evacuated from a host, which keeps what they had although it is back, with that host
        self.kept = []
        #: Hosts whose resource tracker may count what they no longer have: what a failure has left, and what a server
        #: had that came from another host, which Nova tracks only from the next periodic task on.
        self.unsettled = set()

    def walk(self):
        self.rng = random.Random(self.seed)
        self.oracle = oracle.Oracle(self.rng, base.SIZE)
        try:
            for _ in range(STEPS):
                self.step()
            self.finish()
        except Exception as error:
            wrong = f"walk {self.seed}, step {len(self.trace)}: {self.named(error)}"
            self.trace.append(wrong)
            raise oracle.Wrong(wrong) from error
        finally:
            self.addDetail("walk", content.text_content(self.story()))

    def step(self):
        choices = self.choices()
        ((step, server),) = self.rng.choices(choices, [self.frequency(step) for step, _server in choices])
        self.trace.append(f"{step} {server.name if server else ''}".rstrip())
        getattr(self, f"do_{step}")(*[server] if server else [])
        if "fails" in step:
            # What a failure has left is offered again after the next periodic task, which comes each minute.
            self.unsettled.update(self.hosts)
        self.check()

    def frequency(self, step):
        return steps.STEPS[step][0] * (_FAVOUR if step in self.favoured else 1)

    def say(self, words):
        self.trace[-1] += f" {words}"

    # checks

    def check(self):
        self.kept_may_go()
        for host in self.hosts.values():
            self.oracle.check_guests(host.name, self.guests(host))
        self.settles(self.check_ledgers)
        self.settles(self.check_placement)
        self.oracle.check_bytes()

    def check_ledgers(self):
        for host in self.hosts.values():
            self.oracle.check_ledger(host.name, host.ledger, host.directory)

    def check_placement(self):
        for host in self.hosts.values():
            for name, (total, reserved, used) in self.placement_of(host).items():
                if reserved + used - self.leaked_of(host, name) > total:
                    raise oracle.Wrong(f"{name} on {host.name}: {reserved} reserved and {used} used of {total}")

    def leaked_of(self, host, resource_class):
        return sum(resource_class.endswith(f"_{label}") for label in self.leaked[host.name])

    def check_empty(self):
        """Nothing is left of servers that are all deleted: every namespace is free, and all zero if it is clean."""
        self.check_ledgers()
        for host in self.hosts.values():
            states = {state for _name, state, _owner in oracle.read_ledger(host.ledger)}
            if not states <= {"clean", "unknown"}:
                raise oracle.Wrong(f"a namespace on {host.name} is {', '.join(sorted(states))}")
            for name, (_total, reserved, used) in self.placement_of(host).items():
                if reserved or used != self.leaked_of(host, name):
                    raise oracle.Wrong(f"{name} on {host.name}: {reserved} reserved and {used} used, and no servers")

    def settles(self, check, seconds=_SETTLES_SECONDS):
        """Repeat `check` until it passes."""
        errors = []

        def passes():
            errors.clear()
            try:
                check()
            except oracle.Wrong as error:
                errors.append(error)
            return not errors

        try:
            self.wait_until(passes, lambda: errors[0], seconds)
        except AssertionError as error:
            raise oracle.Wrong(str(error)) from error

    def finish(self):
        """Bring all hosts back and delete all servers."""
        for name in list(self.down):
            self.trace.append(f"finish: bring_back {name}")
            self.bring_back_host(name)
        for server in list(self.servers):
            self.trace.append(f"finish: delete {server.name}")
            self.do_delete(server)
            self.check()
        self.trace.append("finish")
        for host in self.hosts.values():
            self.run_periodic(host)
        self.settles(self.check_empty)

    # reports

    def named(self, error):
        text = f"{type(error).__name__}: {error}"
        for uuid, name in self.names.items():
            text = text.replace(uuid, name)
        return text.replace(self.root, "")

    def story(self):
        lines = [f"repeat it with: ./dev walk --walks 1 --steps {STEPS} --seed {self.seed}"]
        lines += [f"{number:3} {line}" for number, line in enumerate(self.trace, 1)]
        lines += ["ledgers:"]
        for host in self.hosts.values():
            rows = (f"{name} {state} {owner or ''}" for name, state, owner in oracle.read_ledger(host.ledger))
            lines.append(f"  {host.name}: {'; '.join(rows)}")
        text = "\n".join(lines)
        for uuid, name in self.names.items():
            text = text.replace(uuid, name)
        return text
