"""Check the wheel of a directory: its tags, its contents, and that it works without a compiler.

The wheel is installed into an empty environment and the demo runs from it. libvirt-python is published as source only,
so a wheel of it is built first, as on an operator's build host. What is installed then becomes the software bill of
materials, in CycloneDX's format.
"""

import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import tempfile
import venv
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[1]

#: What the wheel may contain: Python, its types, the compiled modules, and what describes it.
ALLOWED = re.compile(
    r"vpmem_driver/(\w+/)?\w+\.py|vpmem_driver/_\w+\.(pyi|abi3\.so)|vpmem_driver/py\.typed|vpmem_driver/nova/known_methods\.json|nova/virt/vpmem/\w+\.py"
    r"|vpmem_driver-[^/]*\.dist-info/(METADATA|WHEEL|RECORD|entry_points\.txt|top_level\.txt|licenses/LICENSE)"
)


def main(directory: pathlib.Path) -> None:
    """Check the wheel of `directory`."""
    (wheel,) = directory.glob("vpmem_driver-*.whl")
    check_tags(wheel)
    check_contents(wheel)
    subprocess.run([sys.executable, "-m", "abi3audit", "--strict", wheel], check=True)
    with tempfile.TemporaryDirectory() as scratch:
        home = pathlib.Path(scratch, "venv")
        install(wheel, home, pathlib.Path(scratch, "given"))
        run_demo(home, scratch)
        write_bill(home, wheel.with_name(f"{'-'.join(wheel.name.split('-')[:2])}.cdx.json"))
    print(f"{wheel.name}: installed without a compiler, and its demo ran")


def check_tags(wheel: pathlib.Path) -> None:
    """Require a wheel for every Python from 3.11 and every Linux with a libc from a known version.

    :raises SystemExit: it is another
    """
    tags = rf"vpmem_driver-[^-]+-cp311-abi3-manylinux_2_\d+_{platform.machine()}\.whl"
    if not re.fullmatch(tags, wheel.name):
        sys.exit(f"{wheel.name}: the name should match {tags}")


def check_contents(wheel: pathlib.Path) -> None:
    """Require every module of the package, and nothing that no host needs.

    :raises SystemExit: a file is missing, or one is too many
    """
    with zipfile.ZipFile(wheel) as file:
        names = {name for name in file.namelist() if not name.endswith("/")}
    if stray := {name for name in names if not ALLOWED.fullmatch(name)}:
        sys.exit(f"{wheel.name} contains files that no host needs: {sorted(stray)}")
    package = ROOT / "vpmem_driver"
    wanted = {str(path.relative_to(ROOT)) for path in package.rglob("*.py")}
    wanted |= {f"vpmem_driver/{path.stem}.abi3.so" for path in package.glob("*.pyx")}
    wanted |= {
        str(path.relative_to(ROOT)) for path in [*package.glob("*.pyi"), *package.rglob("*.json"), package / "py.typed"]
    }
    if missing := wanted - names:
        sys.exit(f"{wheel.name} lacks {sorted(missing)}")


def install(wheel: pathlib.Path, home: pathlib.Path, given: pathlib.Path) -> None:
    """Install the wheel into the new environment `home`, with wheels only."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    constraint = ("--constraint", ROOT / "requirements" / "constraints.txt")
    subprocess.run([*pip, "wheel", "--no-deps", *constraint, "--wheel-dir", given, "libvirt-python"], check=True)
    venv.create(home)
    subprocess.run(
        [*pip, "--python", home, "install", "--only-binary", ":all:", *constraint, "--find-links", given, wheel],
        check=True,
    )


def run_demo(home: pathlib.Path, directory: str) -> None:
    """Run the demo with nothing else in PATH than the environment itself."""
    environment = {**os.environ, "PATH": f"{home}/bin"}
    subprocess.run([f"{home}/bin/vpmem", "demo"], check=True, env=environment, cwd=directory)


def write_bill(home: pathlib.Path, bill: pathlib.Path) -> None:
    """Write the software bill of materials of an environment. :raises SystemExit: it lacks the package."""
    subprocess.run(
        [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", "--output-file", bill, home],
        check=True,
    )
    components = {part["name"]: part["version"] for part in json.loads(bill.read_text(encoding="utf-8"))["components"]}
    if components.get("vpmem_driver") != bill.name.removesuffix(".cdx.json").partition("-")[2]:
        sys.exit(f"{bill.name} has the wrong version of vpmem_driver: {components.get('vpmem_driver')}")
    print(f"{bill.name}: {len(components)} packages")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
