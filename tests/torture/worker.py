"""One worker: rounds, one after another, of consecutive seeds. It prints a line of JSON for each."""

import argparse
import gc
import json
import logging
import os
import pathlib
import shutil
import sys
import tempfile

from tests.torture import hooks


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.torture.worker")
    parser.add_argument("--package", required=True, help="the directory that has vpmem_driver")
    parser.add_argument("--directory", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--step", type=int, default=1, help="from one round's seed to the next's")
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--kills", type=int, default=40, help="in each round")
    parser.add_argument("--trace", action="store_true")
    options = parser.parse_args()

    sys.path.insert(0, options.package)
    hooks.install()
    preload(options.package)
    from tests.torture.controller import Round

    logging.getLogger("vpmem_driver").setLevel(logging.CRITICAL)
    gc.collect()
    gc.freeze()
    for number in range(options.rounds):
        before = sum(os.times()[:4])
        directory = pathlib.Path(tempfile.mkdtemp(prefix="vpmem-torture-", dir=options.directory))
        try:
            report = Round(options.seed + number * options.step, directory, options.package, kills=options.kills).run()
        finally:
            shutil.rmtree(directory)
        violation = report.violation
        line = {
            "seed": report.seed,
            "kills": report.kills,
            "stops": report.stops,
            "steps": report.steps,
            "tasks": report.tasks,
            "cpu": sum(os.times()[:4]) - before,
            "points": report.points,
            "check": None if violation is None else violation.check,
            "violation": None if violation is None else str(violation),
            "trace": report.trace if violation is not None or options.trace else None,
        }
        print(json.dumps(line), flush=True)
    return 0


def preload(package: str) -> None:
    """Import what processes need, once."""
    import vpmem_driver

    found = pathlib.Path(vpmem_driver.__file__).parents[1]
    if found != pathlib.Path(package):
        raise RuntimeError(f"vpmem_driver is imported from {found}, not from {package}")
    import vpmem_driver.cli.main
    import vpmem_driver.discovery.directory
    import vpmem_driver.pool
    import vpmem_driver.worker.session

    for module in ("adopt", "claim", "release", "wipe", "namespace_list"):
        __import__(f"vpmem_driver.cli.{module}")


if __name__ == "__main__":
    os.environ.pop("PYTHONPATH", None)
    sys.exit(main())
