"""Nova: its version, whether it finds the driver, and whether rootwrap lets wipes start."""

import configparser
import importlib.metadata
import importlib.util
import pathlib
import shlex
from collections.abc import Iterator

from oslo_config import cfg

from vpmem_driver.checkup import finding
from vpmem_driver.checkup.finding import Finding
from vpmem_driver.checkup.host import Host
from vpmem_driver.faults import checks as faults

#: Nova's major versions that the tests run on: 2025.1 to 2026.2.
TESTED = range(31, 35)

_DRIVER = "vpmem.VPMEMLibvirtDriver"
_WIPE = "vpmem-wipe"


def configured_driver(conf: cfg.ConfigOpts) -> str | None:
    """Return ``[DEFAULT] compute_driver`` of the configuration; None if it is not Nova's."""
    if "compute_driver" not in conf:
        conf.register_opt(cfg.StrOpt("compute_driver"))
    return str(conf.compute_driver) if conf.compute_driver else None


def version(driver: str) -> Iterator[Finding]:
    """Check Nova's version, and that Nova finds the driver.

    :param driver: ``compute_driver``
    """
    check = "Nova"
    try:
        nova = importlib.metadata.version("nova")
    except importlib.metadata.PackageNotFoundError:
        yield finding.warning(
            check, faults.NOVA, "the Python that runs this program has no Nova, so it cannot be checked"
        )
        return
    if not nova.partition(".")[0].isdigit() or int(nova.partition(".")[0]) not in TESTED:
        tested = f"{TESTED.start} to {TESTED.stop - 1}"
        yield finding.warning(check, faults.NOVA, f"version {nova}; this release is tested with Nova {tested}")
    else:
        yield finding.ok(check, f"version {nova}")
    if driver != _DRIVER:
        yield finding.warning("compute_driver", faults.NOVA, f"it is {driver}, not {_DRIVER}")
    elif importlib.util.find_spec("nova.virt.vpmem") is None:
        yield finding.failure(
            "compute_driver", faults.NOVA, f"Nova does not find {_DRIVER}: nova/virt/vpmem is not installed"
        )
    else:
        yield finding.ok("compute_driver", f"{_DRIVER} is found")


def wipe_command(host: Host, command: str | None) -> Iterator[Finding]:
    """Check that the command that starts wipes as root can do so."""
    check = "wipe command"
    words = shlex.split(command or "")
    if not words:
        return
    rootwrap = next((number for number, word in enumerate(words) if word.endswith("rootwrap")), None)
    if rootwrap is None or rootwrap + 1 >= len(words):
        yield finding.ok(check, f"'{command}' (not checked: it does not use rootwrap)")
        return
    text = host.read(words[rootwrap + 1])
    if text is None:
        yield finding.unseen(check, f"{words[rootwrap + 1]} cannot be read")
        return
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(text)
    except configparser.Error as error:
        yield finding.failure(
            check, faults.WIPE_COMMAND, f"{words[rootwrap + 1]} cannot be parsed: {type(error).__name__}"
        )
        return
    yield from _rootwrap(host, check, parser)


def _rootwrap(host: Host, check: str, parser: configparser.RawConfigParser) -> Iterator[Finding]:
    filters = _words(parser, "filters_path")
    allowed = any(
        _WIPE in (host.read(f"{directory}/{name}") or "") for directory in filters for name in host.names(directory)
    )
    directories = _words(parser, "exec_dirs")
    found = [directory for directory in directories if host.path(f"{directory}/{_WIPE}").exists()]
    if not allowed:
        yield finding.failure(
            check, faults.WIPE_COMMAND, f"no filter in {', '.join(filters) or 'filters_path'} allows {_WIPE}"
        )
    elif not found and directories:
        yield finding.failure(check, faults.WIPE_COMMAND, f"{_WIPE} is in none of {', '.join(directories)} (exec_dirs)")
    else:
        yield finding.ok(check, f"rootwrap allows {pathlib.PurePath(found[0], _WIPE) if found else _WIPE}")


def _words(parser: configparser.RawConfigParser, option: str) -> list[str]:
    text = parser.get("DEFAULT", option, fallback="")
    return [word.strip() for word in text.split(",") if word.strip()]
