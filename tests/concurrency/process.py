"""One of the processes: ``python -m concurrency.process KIND NAME SEED THREADS ROOT MEMORY``."""

import os
import pathlib
import random
import sys
import threading
import time
from collections.abc import Callable

from . import host

#: How often the periodic task of a driver runs, in seconds.
PERIOD_SECONDS = 2.0


def main(kind: str, name: str, seed: str, threads: int, where: host.Host) -> int:
    if kind.endswith("driver"):  # as nova-compute does, before all other imports
        from nova import monkey_patch

        os.environ["OS_NOVA_DISABLE_EVENTLET_PATCHING"] = str(kind == "native driver")
        monkey_patch.patch()
        assert monkey_patch.is_patched() == (kind == "eventlet driver")
    from .account import Account

    parent = os.getppid()

    def stopped() -> bool:
        return where.stop_file.exists() or os.getppid() != parent

    account = Account(where.account(name), where.ledger)
    rngs = [random.Random(f"{seed} {name} {number}") for number in range(threads)]
    if kind == "commands":
        from .command_user import CommandUser

        run_all([CommandUser(where, account, rng, stopped).run for rng in rngs])
    elif kind == "pool":
        from .pool_user import PoolUser, open_pool

        pool = open_pool(where)
        run_all([PoolUser(pool, account, rng, stopped).run for rng in rngs])
        pool.close()
    else:
        run_driver(where, account, rngs, stopped)
    return 0


def run_driver(where, account, rngs, stopped) -> None:
    from nova import objects

    objects.register_all()
    from .driver_user import DriverUser, Tracker, open_host_pool

    host_pool = open_host_pool(where)
    tracker = Tracker(host_pool)

    def periodic() -> None:
        while not stopped():
            host_pool.background.start()
            time.sleep(PERIOD_SECONDS)

    run_all([periodic, *[DriverUser(host_pool, tracker, account, rng, stopped).run for rng in rngs]])
    host_pool.background.stop.set()
    while host_pool.background._workers:
        time.sleep(0.1)
    host_pool.pool.close()


def run_all(calls: list[Callable[[], None]]) -> None:
    """Call each in a thread of its own, and wait for all."""
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    kind, name, seed, threads, root, memory = sys.argv[1:]
    sys.exit(main(kind, name, seed, int(threads), host.Host(pathlib.Path(root), pathlib.Path(memory))))
