"""One host in memory: processes that take turns, a disk of a few blocks, and a real ledger.

An actor is a process: a greenlet with a pool of its own. A wiping child is an actor, too. An actor gives way before
each transaction and when it waits for its child; a child gives way before each block that it writes and each word that
it says. Who runs next is a choice of the search.
"""

import contextlib
import os
import pathlib
import select
import sqlite3
import types

import greenlet
import msgspec

from vpmem_driver import exception, ledger, model, protocol
from vpmem_driver.discovery import interface
from vpmem_driver.engine import poll, process
from vpmem_driver.libvirt_domains import Domains
from vpmem_driver.pool import wipes

BLOCK = 4 << 20
BLOCKS = 2
SIZE = BLOCK * BLOCKS
ZERO = ""


class Broken(Exception):
    """An invariant does not hold."""


class Gone(BaseException):
    """The actor's process was killed: nothing that it still does has an effect."""


class Actor:
    """A process. `ready` says whether it can go on; a killed one never does."""

    def __init__(self, world, name, run, child=None):
        self.world = world
        self.name = name
        self.child = child  # the other end of it, where this is a wiping child
        self.family = self if child is None else child.parent
        self.greenlet = greenlet.greenlet(run)
        self.ready = lambda: True
        self.idle = False  # it waits for others: whoever else can run goes first
        self.done = False
        self.killed = False
        self.at = "start"

    @property
    def is_child(self):
        return self.child is not None

    @property
    def runnable(self):
        return not self.done and not self.killed and self.ready()

    def resume(self):
        self.greenlet.switch()
        self.done = self.greenlet.dead


class Child:
    """What :class:`subprocess.Popen` is for a wiping child: a model of it that keeps the protocol and the lock."""

    def __init__(self, world, parent):
        self.world = world
        self.parent = parent
        self.inbox = b""
        self.closed = False
        self.returncode = None
        self.pid = len(world.actors)
        out, self._out = os.pipe()
        err, self._err = os.pipe()
        self.stdin = types.SimpleNamespace(write=self._write, close=self._close)
        self.stdout, self.stderr = os.fdopen(out, "rb", 0), os.fdopen(err, "rb", 0)
        self.actor = world.start(f"{parent.name}'s child", self._run, self)

    # The parent's end

    def _write(self, data):
        if self.returncode is not None:
            raise BrokenPipeError
        self.inbox += data

    def _close(self):
        self.closed = True

    def send_signal(self, _number):
        self.world.kill(self.actor)

    def wait(self, _timeout):
        self.world.wait_for(lambda: self.returncode is not None, "reap")
        return self.returncode

    # The child's end

    def end(self, code):
        self.returncode = code
        self.world.locks.difference_update({lock for lock in self.world.locks if lock[0] is self})
        os.close(self._out)
        os.close(self._err)

    def forget(self):
        """Close what is still open."""
        if self.returncode is None:
            self.end(-9)
        self.stdout.close()
        self.stderr.close()

    def _run(self):
        with contextlib.suppress(EOFError):
            task = protocol.decode_task(self._line("task"))
            if isinstance(task, protocol.CopyTask):
                self._copy(task)
            else:
                self._wipe(task)
        self.end(0)

    def _line(self, what):
        self.world.wait_for(lambda: b"\n" in self.inbox or self.orphaned, what)
        if b"\n" not in self.inbox:
            raise EOFError
        line, self.inbox = self.inbox.split(b"\n", 1)
        return line

    @property
    def orphaned(self):
        return self.closed or self.parent.killed or self.parent.done

    def _say(self, event):
        self.world.give_way(f"says {type(event).__name__}")
        os.write(self._out, protocol.encode(event))

    def _step(self, what):
        self.world.give_way(what)
        if self.orphaned:
            raise EOFError

    def _lock(self, *uuids):
        """Lock namespaces. :returns: False if another process has one, which the parent is told."""
        if any(uuid in uuids for _, uuid in self.world.locks):
            self._say(protocol.Failure(protocol.Outcome.BUSY, "another process holds the lock on it"))
            return False
        self.world.locks.update((self, uuid) for uuid in uuids)
        return True

    def _copy(self, task):
        if not self._lock(task.uuid, task.source):
            return
        self._say(protocol.Ready())
        self._line("go")
        disk, source = self.world.disk[task.uuid], self.world.disk[task.source]
        for block in range(task.start // BLOCK, BLOCKS):
            self._step(f"copies {block}")
            self.world.overwrite(task.uuid, block, source[block])
            os.write(self._out, protocol.encode(protocol.Progress("copy", (block + 1) * BLOCK)))
        self._step("compares")
        if task.uuid in self.world.bad or disk != source:
            self._say(protocol.Failure(protocol.Outcome.MEDIA, "a byte is not that of the source"))
        else:
            os.write(self._out, protocol.encode(protocol.Progress("verify", SIZE)))
            self._say(protocol.Copied())
        self.world.wait_for(lambda: self.orphaned, "the end")

    def _wipe(self, task):
        if not self._lock(task.uuid):
            return
        self._say(protocol.Ready())
        self._line("go")
        disk = self.world.disk[task.uuid]
        for block in range(task.start // BLOCK, BLOCKS):
            self._step(f"zeroes {block}")
            self.world.overwrite(task.uuid, block)
            os.write(self._out, protocol.encode(protocol.Progress("zero", (block + 1) * BLOCK)))
        self._step("verifies")
        if task.uuid in self.world.bad or any(disk):
            self._say(protocol.Failure(protocol.Outcome.MEDIA, "a byte is not zero after zeroing"))
        else:
            os.write(self._out, protocol.encode(protocol.Progress("verify", SIZE)))
            self._say(protocol.Wiped())
        self.world.wait_for(lambda: self.orphaned, "the end")


class Stop:
    """A threading.Event that nobody sets; to wait for it takes no time but the world's."""

    def __init__(self, world):
        self.world = world

    def is_set(self):
        return False

    def wait(self, seconds):
        self.world.now += seconds
        actor = self.world.current
        if actor is not None:
            actor.idle = True
        self.world.give_way("waits")
        return False


class Source(interface.Discovery):
    name = "ndctl"

    def __init__(self, namespaces):
        self._namespaces = namespaces

    def namespaces(self):
        return self._namespaces

    def options(self):
        return {}

    def identity_of(self, fd):
        raise NotImplementedError  # no child opens anything here


class NoDomains(Domains):
    def __init__(self):
        super().__init__(None)

    def user_of(self, device, *, defined=False):
        return None

    def users_of(self, devices):
        return {}


class World:
    """What all actors share, and what an oracle knows: who was told that it holds what, and has written what."""

    def __init__(self, directory: pathlib.Path, uuids, *, bad=()):
        self.directory = directory
        self.disk = {uuid: ["left"] * BLOCKS for uuid in uuids}
        self.bad = set(bad)
        self.locks = set()
        self.now = 0.0
        self.changed = False  # ledger or disk, since the last check
        self.actors = []
        self.current = None
        self.main = greenlet.getcurrent()
        self.over = False
        self.holds = {}  # uuid -> owner that was told so
        self.written = {}  # uuid -> what its owner wrote
        self.deleted = set()  # owners that use nothing any more, whatever they are told
        self.ledgers = {}
        self.looker = sqlite3.connect(f"file:{directory / ledger.FILE_NAME}?mode=ro", uri=True, isolation_level=None)

    # Turns

    def start(self, name, run, child=None):
        self.actors.append(Actor(self, name, run, child))
        return self.actors[-1]

    def give_way(self, at):
        self.wait_for(lambda: True, at)

    def wait_for(self, condition, at):
        """Let others run, and go on when the condition holds and the search chooses this actor."""
        actor = self.current
        if self.over or actor is None:
            if self.over:
                raise Gone
            return
        actor.ready, actor.at = condition, at
        self.main.switch()
        actor.idle = False
        if self.over or actor.killed:
            raise Gone

    def wait(self, fds, _timeout):
        """As vpmem_driver.engine.poll.wait, for the engine."""
        readable = []

        def look():
            poll = select.poll()
            for fd in fds:
                poll.register(fd, select.POLLIN)
            readable[:] = [fd for fd, _ in poll.poll(0)]
            return bool(readable)

        self.wait_for(look, "listens")
        return readable

    def kill(self, actor):
        if actor.done or actor.killed:
            return
        actor.killed = True
        if actor.is_child:
            actor.child.end(-9)
        else:
            self.ledgers.pop(actor).close()

    # What actors do to the disk, and what they are told

    def overwrite(self, uuid, block, content=ZERO):
        """A wipe or a copy overwrites a block."""
        if uuid in self.holds:
            raise Broken(f"a wipe or copy overwrites block {block} of {uuid}, which {self.holds[uuid]} holds")
        self.disk[uuid][block] = content
        self.changed = True

    def told(self, owner, uuid, *, zeros):
        """An owner is told that it holds a namespace."""
        if owner in self.deleted:
            return
        if self.holds.setdefault(uuid, owner) != owner:
            raise Broken(f"{owner} is given {uuid}, which {self.holds[uuid]} holds")
        if zeros and any(self.disk[uuid]) and uuid not in self.written:
            raise Broken(f"{owner} is given {uuid} with {self.disk[uuid]} in it")

    def write(self, owner, uuid):
        self.disk[uuid][:] = [f"secret of {owner}"] * BLOCKS
        self.written[uuid] = list(self.disk[uuid])
        self.changed = True

    def released(self, uuid):
        """To be called before the release: from then on nobody may rely on the bytes."""
        self.holds.pop(uuid, None)
        self.written.pop(uuid, None)

    def check(self):
        """The invariants that hold at every moment, on the ledger as any reader sees it."""
        if not self.changed:
            return
        self.changed = False
        for uuid, state, owner in self.looker.execute("SELECT uuid, state, owner FROM namespace"):
            if state == "clean" and any(self.disk[uuid]):
                raise Broken(f"{uuid} is clean and has {self.disk[uuid]} in it")
            if uuid in self.holds and (state, owner) != ("claimed", self.holds[uuid]):
                raise Broken(f"{self.holds[uuid]} was told that it holds {uuid}, which is {state} of {owner}")
            if uuid in self.written and self.written[uuid] != self.disk[uuid]:
                raise Broken(f"{uuid} has {self.disk[uuid]}, and {self.holds.get(uuid)} wrote {self.written[uuid]}")

    def close(self):
        """End all actors, without effect."""
        self.over = True
        for actor in self.actors:
            if not actor.done:
                with contextlib.suppress(Gone, Exception):
                    actor.greenlet.throw(Gone)
            if actor.is_child:
                actor.child.forget()
        for opened in self.ledgers.values():
            opened.close()
        self.looker.close()


def namespace(uuid, name):
    return model.Namespace(
        uuid=uuid, name=name, size=SIZE, align=4096, numa_node=0, mode="devdax", device=f"/dev/{name}", pmem=True
    )


def errors():
    """What an actor may run into: a typed error is an answer."""
    return exception.VPMEMError, msgspec.DecodeError


#: which world's turn it is to patch; one at a time
current: World | None = None


def install():
    """Have the package's processes, clock and statements go through the current world. For the life of this process."""
    acquire, execute = ledger.Ledger._acquire, ledger.Ledger._execute

    def give_way_and_acquire(self):
        if _is_running():
            current.give_way("transaction")
        acquire(self)

    def execute_and_note(self, statement, values=()):
        if _is_running():
            current.changed |= statement == "COMMIT"
        return execute(self, statement, values)

    ledger.Ledger._acquire = give_way_and_acquire
    ledger.Ledger._execute = execute_and_note
    process.subprocess = types.SimpleNamespace(
        Popen=lambda *_args, **_kwargs: Child(current, current.current),
        PIPE=-1,
        TimeoutExpired=TimeoutError,
    )
    poll.has_ended = lambda child, seconds: child.wait(seconds) is not None
    # Fewer looks at what another process does.
    wipes._QUIET_SECONDS, wipes.STUCK_SECONDS = 2 * wipes._POLL_SECONDS, 4 * wipes._POLL_SECONDS
    wipes.time = types.SimpleNamespace(monotonic=lambda: current.now)


def _is_running():
    """Whether an actor runs.

    :raises Gone: it was killed
    """
    if current is None or current.current is None:
        return False
    if current.over or current.current.killed:
        raise Gone
    return True
