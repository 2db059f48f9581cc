"""``vpmem-status upgrade check``: the checks of ``vpmem host check`` in the form of OpenStack's deployment tools.

Exit codes are those of oslo.upgradecheck, on which Nova depends: 0 success, 1 warning, 2 failure, 255 error.
"""

import sys
from collections.abc import Callable, Sequence

from oslo_config import cfg

from vpmem_driver import conf as vpmem_conf
from vpmem_driver import exception
from vpmem_driver.checkup import Level, run

#: Exit code of oslo.upgradecheck for everything else.
_ERROR = 255


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code. Without ``--config-file``, it reads Nova's files."""
    try:
        from oslo_upgradecheck import upgradecheck  # noqa: PLC0415  absent without Nova
    except ImportError:
        print("vpmem-status: this Python has no oslo.upgradecheck. Use that of nova-compute.", file=sys.stderr)
        return _ERROR
    conf = cfg.ConfigOpts()
    vpmem_conf.register_opts(conf)
    subjects: list[run.Subject] = []

    def make(name: str) -> Callable[..., object]:
        def check(_commands: object) -> object:
            try:
                if not subjects:
                    subjects.append(run.Subject.of(conf))
            except exception.VPMEMError as error:
                return upgradecheck.Result(upgradecheck.Code.FAILURE, error.with_id())
            found = list(run.GROUPS[name](subjects[0]))
            code = {Level.FAILURE: upgradecheck.Code.FAILURE, Level.WARNING: upgradecheck.Code.WARNING}.get(
                run.worst(found), upgradecheck.Code.SUCCESS
            )
            shown = [finding for finding in found if finding.level is not Level.OK]
            lines = [f"{line.check}: {line.message}" + (f" ({line.id})" if line.id else "") for line in shown]
            return upgradecheck.Result(code, "; ".join(lines) or None)

        return check

    class Checks(upgradecheck.UpgradeCommands):
        _upgrade_checks = tuple((name, make(name)) for name in run.GROUPS)

    try:
        return int(upgradecheck.main(conf, "nova", Checks(), argv=list(sys.argv[1:] if argv is None else argv)))
    except cfg.Error as error:
        print(f"vpmem-status: {error}", file=sys.stderr)
        return _ERROR


if __name__ == "__main__":
    sys.exit(main())
