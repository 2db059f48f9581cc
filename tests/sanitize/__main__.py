"""Run the tests of the compiled modules under the sanitizers: ``./dev sanitize``.

Then show that they have teeth: mistakes are put into the compiled code, of which no test that only looks at results
would notice all, and each must be reported.
"""

import concurrent.futures
import pathlib
import sys
import tempfile

from tests.sanitize.tree import Mutant, Result, Tree

#: Each is a run of pytest; two run side by side.
TESTS = (
    ("tests/unit/pool/test_fastalloc.py",),
    ("tests/sanitize/test_edges.py", "tests/unit/test_pmem.py", "tests/unit/worker/test_worker.py"),
)

MUTANTS = (
    Mutant(
        "the search reads one byte too many",
        "_pmem_stream.h",
        "while (at < length && start[at] == 0)",
        "while (start[at] == 0 && at < length)",
        "heap-buffer-overflow",
        ("tests/sanitize/test_edges.py", "-k", "whole_allocation"),
    ),
    Mutant(
        "an edge is flushed one byte too far",
        "_pmem_stream.h",
        "_mm_clflush(start + length - 1);",
        "_mm_clflush(start + length);",
        "SEGV",
        ("tests/sanitize/test_edges.py", "-k", "up_to_the_last"),
    ),
    Mutant(
        "the check of a range overflows",
        "_pmem.pyx",
        "or offset > size or length > size - offset:",
        "or offset + length > size:",
        "signed integer overflow",
        ("tests/unit/test_pmem.py",),
    ),
    Mutant(
        "the table has no place for the end of its groups",
        "fastalloc/table.pxi",
        "allocate(table, group_count + 1, sizeof(Group))",
        "allocate(table, group_count, sizeof(Group))",
        "heap-buffer-overflow",
        ("tests/unit/pool/test_fastalloc.py",),
    ),
)


def main() -> int:
    """Build, run all, report; the exit code."""
    with tempfile.TemporaryDirectory(prefix="vpmem-sanitize-") as made:
        directory = pathlib.Path(made)
        tree = Tree(directory / "tree")
        tree.build()
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            tests = [pool.submit(tree.test, words) for words in TESTS]
            mutants = [pool.submit(_caught, directory / f"mutant{n}", tree, each) for n, each in enumerate(MUTANTS)]
            failures = sum(not _report(" ".join(words), run.result()) for words, run in zip(TESTS, tests, strict=True))
            for mutant, run in zip(MUTANTS, mutants, strict=True):
                print(f"{'caught' if run.result() else 'NOT CAUGHT'}: {mutant.name} ({mutant.report})", flush=True)
                failures += not run.result()
    print(f"{len(TESTS) + len(MUTANTS) - failures} passed, {failures} failed")
    return 1 if failures else 0


def _report(name: str, result: Result) -> bool:
    print(f"{name}: {result.output.rstrip().splitlines()[-1]}", flush=True)
    if not result.passed:
        print(f"{result.output[-20_000:]}\n{result.reports[:20_000]}", flush=True)
    return result.passed


def _caught(path: pathlib.Path, original: Tree, mutant: Mutant) -> bool:
    tree = Tree(path, original)
    tree.mutate(mutant)
    tree.build()
    result = tree.test(("--exitfirst", *mutant.tests))
    return not result.passed and mutant.report in result.reports + result.output


if __name__ == "__main__":
    sys.exit(main())
