"""The process that fuzzes one target: ``python -m tests.fuzz.worker TARGET DIRECTORY SECONDS SEED``.

In DIRECTORY it leaves a file in ``findings`` for each finding, the shortest input that led to it. It goes on after a
finding; only a crash, or an input that goes far beyond the limits, ends it, and libFuzzer leaves that input in
DIRECTORY as ``crash-…``, ``timeout-…`` or ``oom-…``.
"""

import hashlib
import pathlib
import random
import sys

import atheris

from tests.fuzz.target import Target

#: What ends the process, and with it the run. The limits that only make a finding are lower.
TIMEOUT_SECONDS = 30
MEMORY_MIB = 2048

_STRUCTURED = 0.7  # of all mutations


def main() -> None:
    """Fuzz until the time is over."""
    name, directory, seconds, seed = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3], sys.argv[4]
    with atheris.instrument_imports(include=["vpmem_driver"]):
        from tests.fuzz import finding, targets

        (directory / "root").mkdir()
        target = targets.load(name, directory / "root")
    finding.format_logs()
    (directory / "findings").mkdir()

    def test_one(data: bytes) -> None:
        if found := finding.look(target, data):
            _keep(directory / "findings", f"{found.what} {found.where}", data)

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        chance = random.Random(seed)
        changed = target.mutate(data, chance) if chance.random() < _STRUCTURED else None
        return changed if changed is not None and 0 < len(changed) <= max_size else atheris.Mutate(data, max_size)

    options = {
        "max_total_time": seconds,
        "seed": seed,
        "max_len": target.max_bytes,
        "artifact_prefix": f"{directory}/",
        "timeout": TIMEOUT_SECONDS,
        "rss_limit_mb": MEMORY_MIB,
    }
    if target.words:
        options["dict"] = _write_words(directory / "words", target)
    words = [f"-{option}={value}" for option, value in options.items()]
    atheris.Setup([sys.argv[0], *words, _write_seeds(directory / "corpus", target)], test_one, custom_mutator=mutate)
    atheris.Fuzz()


def _keep(directory: pathlib.Path, name: str, data: bytes) -> None:
    path = directory / hashlib.sha256(name.encode()).hexdigest()
    if not path.exists() or path.stat().st_size > len(data):
        path.write_bytes(data)


def _write_words(path: pathlib.Path, target: Target) -> str:
    lines = ["".join(f"\\x{byte:02x}" for byte in word.encode()) for word in target.words]
    path.write_text("".join(f'"{line}"\n' for line in lines if len(line) <= 256))
    return str(path)


def _write_seeds(directory: pathlib.Path, target: Target) -> str:
    directory.mkdir()
    for number, seed in enumerate(target.seeds()):
        (directory / f"{number}").write_bytes(seed)
    return str(directory)


if __name__ == "__main__":
    main()
