"""The wipe of a device-dax namespace, beside that of PMDK's own tool, in one run."""

import datetime

import pytest


@pytest.fixture
def device(host):
    """The namespace that is big enough to be timed, as it is called now."""
    return host.vpmem("namespace", "show", "big", "-f", "json").json["device"]


def test_wipe_has_the_result_of_daxio(host, device, seen):
    host.call("fill", device, "the last owner's")
    daxio = host.run("daxio", "--zero", "--output", device)
    assert host.call("content", device) == ""

    host.call("fill", device, "the last owner's")
    assert host.call("content", device) == "the last owner's"
    wipe = host.vpmem("wipe", "--namespace", "big", "-f", "json")
    assert host.call("content", device) == ""
    (row,) = wipe.json
    assert (row["name"], row["state"]) == ("big", "clean")

    mib = row["size"] >> 20
    seen(f"daxio -z of {mib} MiB", f"all zero; the program took {daxio.seconds:.2f} s")
    moves = host.vpmem("history", "--namespace", "big", "--last", "2", "-f", "json").json
    asked, done = (datetime.datetime.fromisoformat(move["at"]) for move in moves)
    assert [move["to_state"] for move in moves] == ["dirty", "clean"]
    took = f"{(done - asked).total_seconds():.2f} s from dirty to clean"
    seen(f"vpmem wipe of {mib} MiB", f"all zero, and read back; {took}, {wipe.seconds:.2f} s as a command")
