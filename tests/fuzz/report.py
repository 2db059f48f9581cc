"""Report what a fuzzing process left in its directory: ``python -m tests.fuzz.report TARGET DIRECTORY``.

Each finding is run again, without atheris, and made smaller. Prints one paragraph for each; the exit code is 1 when
there is any. This is a process of its own because what ends or delays a fuzzing process can do so here.
"""

import pathlib
import sys
from collections.abc import Iterator

from tests.fuzz import finding, targets

_MOST_SHOWN = 20_000  # characters of an input


def main() -> int:
    """Print the findings; the exit code."""
    name, directory = sys.argv[1], pathlib.Path(sys.argv[2])
    finding.format_logs()
    (directory / "report").mkdir()
    target = targets.load(name, directory / "report")
    reports = [*_fatal(target, directory), *_findings(target, directory)]
    print("\n\n".join(reports))
    return 1 if reports else 0


def _fatal(target: targets.Target, directory: pathlib.Path) -> Iterator[str]:
    """What ended the process. It is not run again."""
    for kind in ("crash", "timeout", "oom"):
        for path in directory.glob(f"{kind}-*"):
            yield f"{kind}, which ended the process\n  {_shown(target, path.read_bytes())}"


def _findings(target: targets.Target, directory: pathlib.Path) -> Iterator[str]:
    for path in sorted(directory.glob("findings/*")):
        data = path.read_bytes()
        found = finding.look(target, data)
        if found is None:
            yield f"an input that does not fail again (without atheris it is faster)\n  {_shown(target, data)}"
            continue
        data = finding.shrink(data, lambda shorter, found=found: finding.look(target, shorter) == found)
        found = finding.look(target, data) or found
        yield f"{found.what} {found.where and f'in {found.where}'}\n{found.details}\n  {_shown(target, data)}"


def _shown(target: targets.Target, data: bytes) -> str:
    try:
        text = target.shown(data)
    except Exception as error:  # noqa: BLE001  then the bytes must do
        text = f"{finding.literal(data)}  # {type(error).__name__}"
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}… ({len(text)} characters)"


if __name__ == "__main__":
    sys.exit(main())
