"""Programs of the machine, run to their end."""

import pathlib
import subprocess


def run(*words: str | pathlib.Path, cwd: pathlib.Path | None = None) -> str:
    """What a program prints; what it said is in the error when it fails."""
    done = subprocess.run([str(word) for word in words], cwd=cwd, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, words))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout
