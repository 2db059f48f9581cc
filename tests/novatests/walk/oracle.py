"""What each server must find in its namespaces, and whether it does.

Knows files and SQLite: no code of the package and none of Nova's.
"""

import contextlib
import sqlite3

BLOCK = 4096
NOW, OLD = "now", "old"
ZERO = bytes(BLOCK)


class Wrong(AssertionError):
    """A server does not find what it must find, or finds what it must not."""


class Oracle:
    """The memory of all servers on all hosts.

    :ivar memory: (server, host, kind) -> path -> the block of bytes that fills the namespace; None for "not checked".
        NOW is what its guest has; OLD is what a server has left on a host until that is confirmed or cleaned up.
    :ivar leftovers: those in `memory` that may be released: the server is well without them
    """

    def __init__(self, rng, size):
        self._rng = rng
        self._size = size
        self.memory = {}
        self.leftovers = set()
        #: those in `memory` whose order of devices is not known
        self.unordered = set()

    # What guests do

    def starts_anew(self, server, host, paths, *, runs, blocks=()):
        """A guest of `server` starts on `host` for the first time: it must find zeros.

        :param blocks: what it must find instead in its first devices
        """
        for key in self.of(host=host):
            memory = self.memory[key]
            if key == (server, host, NOW) or not set(paths) & set(memory):
                continue
            if key in self.leftovers:
                self.leaves(*key)
            else:
                raise Wrong(f"{server} starts on {host} with {_names(paths)}, of which {key[0]} has {_names(memory)}")
        wanted = dict.fromkeys(paths, ZERO) | dict(zip(paths, blocks, strict=False))
        for path, block in wanted.items():
            self._require(server, host, path, block)
        self.memory[server, host, NOW] = wanted
        if runs:
            self.write(server, host)

    def comes_back(self, server, host, paths, *, runs):
        """The same guest starts again on `host`: it must find its namespaces, and in them what it wrote."""
        key = (server, host, NOW)
        memory = self.memory.get(key, {})
        is_unordered = key in self.unordered or None in memory.values()
        if list(memory) != list(paths) and not (is_unordered and set(memory) == set(paths)):
            raise Wrong(f"{server} comes back on {host} with {_names(paths)}; it had {_names(memory)}")
        for path, block in memory.items():
            self._require(server, host, path, ZERO if block is None else block)
        self.memory[key] = {path: memory[path] or ZERO for path in paths}
        self.unordered.discard(key)
        if runs:
            self.write(server, host)

    def moves(self, server, source, dest, paths):
        """A running guest has moved with its bytes: it must find them in the same order."""
        blocks = list(self.memory.pop((server, source, NOW)).values())
        if len(blocks) != len(paths):
            raise Wrong(f"{server} had {len(blocks)} namespaces on {source}, and has {_names(paths)} on {dest}")
        self.memory[server, dest, NOW] = dict(zip(paths, blocks, strict=True))
        self.comes_back(server, dest, paths, runs=True)

    def sets_aside(self, server, host):
        """The server leaves `host`, which keeps its bytes until that is confirmed, or cleaned up."""
        self.memory[server, host, OLD] = self.memory.pop((server, host, NOW))

    def returns(self, server, host):
        """The server is back on `host`, where it has its old memory."""
        self.memory[server, host, NOW] = self.memory.pop((server, host, OLD))

    def write(self, server, host):
        """The guest fills its namespaces with a pattern that nobody else writes."""
        memory = self.memory[server, host, NOW]
        for path in memory:
            memory[path] = self._rng.randbytes(BLOCK)
            path.write_bytes(memory[path] * (self._size // BLOCK))

    def leaves(self, server, host=None, kind=None):
        """What `server` has on `host` (default: everywhere) must be released."""
        for key in self.of(server, host, kind):
            del self.memory[key]
            self.leftovers.discard(key)
            self.unordered.discard(key)

    def blocks(self, server, host):
        """What the guest of `server` has on `host`, in the order of its devices."""
        return list(self.memory[server, host, NOW].values())

    def of(self, server=None, host=None, kind=None):
        """The keys of `memory` that fit."""
        wanted = (server, host, kind)
        return [key for key in self.memory if all(want in {None, part} for want, part in zip(wanted, key, strict=True))]

    # Checks

    def check_bytes(self):
        """Every owner still finds what it wrote."""
        for key, memory in self.memory.items():
            for path, block in memory.items():
                if block is not None and key not in self.leftovers:
                    self._require(*key[:2], path, block)

    def owners(self, host):
        """name -> owner, as the ledger of `host` must have it."""
        return {path.name: key[0] for key in self.of(host=host) for path in self.memory[key]}

    def check_ledger(self, host, ledger, directory):
        """The `ledger` of `host` has exactly these owners; every namespace that it calls clean is all zero."""
        optional = {path.name for key in self.leftovers if key[1] == host for path in self.memory[key]}
        wanted, found = self.owners(host), {}
        for name, state, owner in read_ledger(ledger):
            if owner is not None:
                found[name] = owner
            elif state == "clean":
                self._require("nobody", host, directory / name, ZERO)
        different = {
            name
            for name in wanted.keys() | found.keys()
            if wanted.get(name) != found.get(name) and not (name in optional and name not in found)
        }
        if different:
            lines = (f"{name}: {found.get(name)}, not {wanted.get(name)}" for name in sorted(different))
            raise Wrong(f"the ledger of {host} has other owners: {'; '.join(lines)}")

    @staticmethod
    def check_guests(host, paths_of):
        """No two running guests have one namespace.

        :param paths_of: server -> the files of its running guest on `host`
        """
        users = {}
        for server, paths in paths_of.items():
            for path in paths:
                if users.setdefault(path, server) != server:
                    raise Wrong(f"{path.name} on {host} is in the guests of {users[path]} and of {server}")

    def _require(self, server, host, path, block):
        data = path.read_bytes()
        if data == block * (self._size // BLOCK):
            return
        wanted = "zeros" if block == ZERO else "what it wrote"
        what = "other bytes" if any(data) else "zeros"
        offset = next(index for index in range(0, self._size, BLOCK) if data[index : index + BLOCK] != block)
        raise Wrong(f"{server} must find {wanted} in {path.name} on {host}, and finds {what} at {offset}")


def read_ledger(path):
    """name, state and owner of each namespace in a host's ledger; those of an owner in the order of its devices."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as connection:
        return connection.execute("SELECT name, state, owner FROM namespace ORDER BY position").fetchall()


def _names(paths):
    return ", ".join(path.name for path in paths) or "nothing"
