"""A program that is called as ndctl is, on regions in a file: ``list`` and ``create-namespace``.

The arithmetic is that of nd_pfn_init() in Linux, written again. The variable NDCTL_FAULT breaks it: ``stop`` ends a
creation half way, ``small`` makes a smaller namespace, ``fail`` fails.
"""

import argparse
import json
import os
import pathlib
import sys
import uuid

UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def region(number, size, *, node=None, namespaces=(), align=16 << 20, **more):
    """A region as ndctl list prints it; namespaces, of a raw size each, are in it."""
    made = {"dev": f"region{number}", "size": size, "align": align, "available_size": size, "type": "pmem"}
    made |= {"max_available_extent": size, "iset_id": 1000 + number, "persistence_domain": "memory_controller"}
    made |= {} if node is None else {"numa_node": node}
    made |= {"namespaces": []} | more
    for name, raw in namespaces:
        add(made, name, raw)
    return made


def add(made, name, raw, *, where="dev", align=2 << 20, mode="devdax"):
    """Cut a namespace from a region."""
    head = (8 << 10) + (raw - (8 << 10)) // 4096 * 64 * (where == "dev")
    while head % max(align, 2 << 20):
        head += 4096 - head % 4096
    number = f"{made['dev'].removeprefix('region')}.{len(made['namespaces'])}"
    device = {"chardev": f"dax{number}", "size": raw - head, "align": align, "mode": mode}
    made["namespaces"].append(
        {
            "dev": f"namespace{number}",
            "mode": "devdax",
            "map": where,
            "size": raw - head,
            "uuid": str(uuid.uuid4()),
            "daxregion": {"id": 0, "size": raw - head, "align": align, "devices": [device]},
            "align": align,
            "name": name,
            "numa_node": made.get("numa_node", -1),
        }
    )
    for key in ("available_size", "max_available_extent"):
        made[key] -= raw


def install(directory, regions):
    """Make the program in a directory for PATH; returns the file with its regions."""
    directory.mkdir(exist_ok=True)
    state = directory / "regions.json"
    state.write_text(json.dumps(regions))
    program = directory / "ndctl"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {state} "$@"\n')
    program.chmod(0o755)
    return state


def size(text):
    return int(text[:-1]) * UNITS[text[-1]] if text[-1] in UNITS else int(text)


def create(regions, words):
    parser = argparse.ArgumentParser()
    for letter in "rmMasn":
        parser.add_argument(f"-{letter}", required=True)
    wanted = parser.parse_args(words)
    (made,) = [one for one in regions if one["dev"] == wanted.r]
    fault, raw = os.environ.get("NDCTL_FAULT"), size(wanted.s)
    if fault == "fail" or raw % made["align"] or raw > made["max_available_extent"]:
        print("failed to create namespace: Invalid argument", file=sys.stderr)
        return 1
    add(made, wanted.n, raw - made["align"] * (fault == "small"), where=wanted.M, align=size(wanted.a))
    if fault == "stop":
        made["namespaces"][-1] |= {"mode": "raw", "size": raw}
        return 1
    return 0


def main(path, command, *words):
    state = pathlib.Path(path)
    regions = json.loads(state.read_text())
    if command == "create-namespace":
        code = create(regions, words)
        state.write_text(json.dumps(regions))
        return code
    if "--regions" in words:
        print(json.dumps({"dimms": [], "regions": regions}))
    else:
        print(json.dumps([namespace for one in regions for namespace in one["namespaces"]]))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
