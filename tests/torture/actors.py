"""What processes of a round do with the package: by its Python interface, by its command line, and as a guest."""

import contextlib
import gc
import mmap
import os
import pathlib
import sys
import typing
from collections.abc import Callable

from tests.torture import container, link, spawn

CHUNKS = 3


def start(address: str, errors: pathlib.Path, main: Callable[..., int], *values: object, contained: bool) -> int:
    """Fork a process that does `main` and nothing else.

    :param contained: it sees no processes but its own, as in a container; the process that is returned waits for it
    :returns: a pid
    """

    def act() -> int:
        gc.disable()
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
        if contained:
            container.enter()
        return main(address, *values)

    return spawn.fork(act)


def _grants(grants: typing.Any) -> list[dict[str, object]]:
    return [
        {"uuid": grant.uuid, "device": grant.device, "label": grant.label, "ready": grant.ready} for grant in grants
    ]


def _chunk(size: int, number: int) -> tuple[int, int]:
    """Where a step of a write begins and ends: whole pages."""
    pages = size // mmap.PAGESIZE
    return pages * number // CHUNKS * mmap.PAGESIZE, pages * (number + 1) // CHUNKS * mmap.PAGESIZE


def _write(path: str, inode: int, pattern: str) -> None:
    """Write all of it, in steps, as a guest that an owner starts and stops."""
    data = pattern.encode()
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if os.fstat(fd).st_ino != inode:
            raise RuntimeError(f"{path} does not lead to what was granted")
        size = os.fstat(fd).st_size
        for number in range(CHUNKS):
            begin, end = _chunk(size, number)
            os.pwrite(fd, data * ((end - begin) // len(data)), begin)
            _link().tell("point", "owner wrote")
        os.fdatasync(fd)
    finally:
        os.close(fd)


def _link() -> link.Link:
    assert link.current is not None
    return link.current


def _do(pool: typing.Any, do: str, owner: str, uuids: list[str] | None, labels: list[str]) -> typing.Any:
    match do:
        case "claim":
            result: object = {"grants": _grants(pool.claim(owner, labels))}
        case "claim_exact":
            result = {"grants": _grants(pool.claim_exact(owner, uuids))}
        case "adopt":
            result = {"grants": _grants(pool.adopt(owner, uuids))}
        case "grants":
            result = {"grants": _grants(pool.grants(owner))}
        case "release":
            result = {"uuids": [record.uuid for record in pool.release(owner, uuids)]}
        case "renew":
            result = {"uuids": pool.renew(owner)}
        case "wipe":
            result = {"wiped": [[each.uuid, each.outcome.value] for each in pool.wipe(uuids)]}
        case "look":
            result = {"records": len(pool.records()), "labels": len(pool.inventory())}
        case _:
            raise ValueError(do)
    return result


def api(address: str, pmem_namespaces: list[str], options: dict[str, object]) -> int:
    """A process that has a pool, and does what it is asked, until it is asked nothing more."""
    link.current = link.Link(address, "api")
    from vpmem_driver import exception

    pool = None
    while (ask := _link().tell("fact", "next")) is not None:
        try:
            if ask["do"] == "write":
                _write(ask["path"], ask["inode"], ask["pattern"])
                result: typing.Any = {}
            else:
                pool = pool or open_pool(pmem_namespaces, options)
                result = _do(pool, ask["do"], ask["owner"], ask["uuids"], ask["labels"])
        except exception.VPMEMError as error:
            _link().tell("fact", "refused", error=type(error).__name__, text=str(error))
        except KeyboardInterrupt:
            _link().tell("fact", "refused", error="KeyboardInterrupt", text="")
        else:
            _link().tell("fact", "done", result=result)
    if pool is not None:
        pool.close()
    return 0


def open_pool(pmem_namespaces: list[str], options: dict[str, object]) -> typing.Any:
    from oslo_config import cfg

    from vpmem_driver import conf
    from vpmem_driver.pool import Pool

    config = cfg.ConfigOpts()
    conf.register_opts(config)
    config([], default_config_files=[], default_config_dirs=[])
    config.set_override("pmem_namespaces", pmem_namespaces, group="libvirt")
    for name, value in options.items():
        config.set_override(name, value, group="vpmem")
    return Pool.from_conf(config)


def cli(address: str, words: list[str], output: str) -> int:
    """The command line; what it prints goes to the file `output`."""
    os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 1)
    if spawn.real:
        os.execv(sys.executable, [sys.executable, *spawn.program, "cli", *words])  # noqa: S606  as an operator's shell does
    link.current = link.Link(address, "cli")
    return spawn.run(words)


def guest(address: str, path: str, inode: int, pattern: str) -> int:
    """A guest: it maps what its owner was granted, and writes `pattern` to it; nothing if that is empty."""
    link.current = link.Link(address, "guest")
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    if os.fstat(fd).st_ino != inode:
        _link().tell("fact", "broke", text=f"{path} does not lead to what was granted")
        return 1
    size = os.fstat(fd).st_size
    with contextlib.closing(mmap.mmap(fd, size)) as memory:
        os.close(fd)
        _link().tell("fact", "mapped")
        for number in range(CHUNKS if pattern else 0):
            begin, end = _chunk(size, number)
            memory[begin:end] = pattern.encode() * ((end - begin) // 16)
            _link().tell("point", "guest wrote")
        if pattern:
            memory.flush()
            _link().tell("point", "guest flushed", synced=inode)
        for _ in range(2):
            _link().tell("point", "guest runs")
    return 0
