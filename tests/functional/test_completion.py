"""Bash completes the commands, with the script that 'vpmem complete' prints and the package bash-completion."""

import os
import pathlib
import shlex
import subprocess
import sys

import pytest

from vpmem_driver.cli import main

LIBRARY = pathlib.Path("/usr/share/bash-completion/bash_completion")

#: Print what Tab offers after each line that is read: one line of words for each.
ASK = """
while IFS= read -r COMP_LINE; do
    COMPREPLY=()
    read -ra COMP_WORDS <<< "$COMP_LINE"
    [[ $COMP_LINE == *' ' ]] && COMP_WORDS+=("")
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMP_POINT=${#COMP_LINE}
    _vpmem
    echo "${COMPREPLY[*]}"
done
"""


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """Ask a bash that has sourced the script; returns the words that it offers for each line."""
    if not LIBRARY.exists():
        (pytest.fail if "CI" in os.environ else pytest.skip)("the package bash-completion is not installed")
    directory = tmp_path_factory.mktemp("completion")
    script = directory / "vpmem"
    with script.open("w") as file:
        subprocess.run([sys.executable, "-m", "vpmem_driver.cli.main", "complete"], stdout=file, check=True)
    (directory / "a-file").touch()
    program = f"source {LIBRARY}; source {shlex.quote(str(script))}; complete -p vpmem; {ASK}"

    def ask(*lines):
        done = subprocess.run(
            ["bash", "--norc", "-c", program],
            input="".join(f"{line}\n" for line in lines),
            capture_output=True,
            text=True,
            check=True,
            cwd=directory,
        )
        assert done.stderr == ""
        registered, *answers = done.stdout.splitlines()
        assert registered == "complete -F _vpmem vpmem"
        return [answer.split() for answer in answers]

    return ask


def test_every_word_of_every_command(complete):
    asked = [(words, at) for words in map(str.split, main.COMMANDS) for at in range(len(words))]
    lines = [f"vpmem {' '.join([*words[:at], words[at][:2]])}" for words, at in asked]
    for line, (words, at), offered in zip(lines, asked, complete(*lines), strict=True):
        assert words[at] in offered, line


def test_all_that_can_follow(complete):
    top, host, options, files = complete("vpmem ", "vpmem host ", "vpmem release --", "vpmem ledger restore a")
    assert set(top) == {"complete", "help", *(name.split()[0] for name in main.COMMANDS)}
    assert set(host) == {name.split()[1] for name in main.COMMANDS if name.startswith("host ")}
    assert {"--force", "--reason", "--wait", "--dry-run", "--format"} <= set(options)
    assert set(files) == {"a-file"}


def test_what_there_is_not(complete):
    assert complete("vpmem nosuch", "vpmem host nosuch", "vpmem status --nosuch") == [[], [], []]
