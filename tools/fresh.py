"""Install and run the package on a fresh machine: a debootstrap tree in which there is nothing but python3.

Without --nova: install the wheel of dist/ without a compiler, then run ./dev demo and ./dev test as the README says.
With --nova: install the release's own nova-compute, and start it with the driver from a virtual environment beside it.
With --arm64: install the release for arm64, and run ./dev demo and the unit tests in it under QEMU's user emulation.

Needs root. Mounts and processes are in namespaces of their own and end with this program.
"""

import argparse
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]

#: Debian's releases. All other names are Ubuntu's.
DEBIAN = ("bookworm", "trixie", "forky", "sid")

#: Tests of what QEMU's emulator does not do: it hangs when the main thread of a program ends before the others, and
#: takes MADV_DONTDUMP for itself.
NOT_EMULATED = (
    "tests/unit/test_device_users.py::test_a_process_whose_main_thread_has_ended_is_found",
    "tests/unit/test_device_users.py::test_a_user_without_a_main_thread_is_found",
    "tests/unit/worker/test_device.py::test_what_is_mapped_is_its_content_and_stays_out_of_core_dumps",
)

#: Directories in the tree: the project, and the environment with its wheel.
PROJECT, ENVIRONMENT = "/root/vpmem_driver", "/opt/vpmem"

#: Where the certificates of this machine are in the tree. Debian's package overwrites the file at its usual path.
CERTIFICATES = "/etc/vpmem-fresh.crt"

#: The kernel's entry for arm64 programs.
EMULATION = pathlib.Path("/proc/sys/fs/binfmt_misc/qemu-aarch64")
#: "target/arm: Allow DC CVA[D]P in user mode emulation", QEMU 8.1.
QEMU_WITH_DC_CVAP = (8, 1)

#: What pip and apt need to reach the registries of this machine.
KEPT = ("CI", "PIP_INDEX_URL", "PIP_DEFAULT_TIMEOUT", "http_proxy", "https_proxy", "no_proxy")

#: Enters the tree as its root directory, as on a machine of its own: with chroot(8), /proc shows other paths.
ENTER = 'cd "$1" && pivot_root . mnt && umount -l mnt && cd "$2" && shift 2 && exec "$@"'

#: Loads the driver as nova-compute does, and prints where driver and Nova come from, and what the driver warns of.
LOAD = """\
import logging
from vpmem_driver.nova import installation
logging.basicConfig(level=logging.WARNING)
installation.let_nova_find_the_driver()
from nova import objects
from oslo_utils import importutils
objects.register_all()
import nova.virt.libvirt.driver
driver = importutils.import_class("nova.virt.vpmem.VPMEMLibvirtDriver")
assert issubclass(driver, nova.virt.libvirt.driver.LibvirtDriver)
installation.warn_of_an_untested_nova()
print(driver.__module__, nova.__file__)
"""


def debootstrap(name: str, scratch: pathlib.Path, *, arm64: bool = False) -> pathlib.Path:
    """Install the base system of the release `name`, with python3, below `scratch`, and return its directory.

    Ubuntu is installed from within a Debian 13, whose debootstrap has Ubuntu's keys.
    """
    if name in DEBIAN:
        machine = ("--arch=arm64",) if arm64 else ()
        run_debootstrap(*machine, "--include=python3", name, f"{scratch}/{name}")
        return scratch / name
    debian = scratch / "debian"
    run_debootstrap("--include=debootstrap,ubuntu-keyring", "trixie", str(debian))
    script = debian / "usr/share/debootstrap/scripts" / name
    if not script.exists():
        script.symlink_to("gutsy")  # the script of every newer Ubuntu
    run_debootstrap("--include=python3", "--components=main,universe", name, f"/srv/{name}", inside=debian)
    return debian / "srv" / name


def run_debootstrap(*words: str, inside: pathlib.Path = pathlib.Path("/")) -> None:
    """Run the debootstrap of the tree `inside`. :raises SystemExit: it failed."""
    print(f"fresh: debootstrap {' '.join(words)}", flush=True)
    command = ["chroot", inside, "debootstrap", "--variant=minbase", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        sys.exit(f"fresh: debootstrap failed:\n{done.stdout[-2000:]}")


class Machine:
    """A tree that is prepared to run commands as a machine of its own."""

    def __init__(self, name: str, tree: pathlib.Path) -> None:
        self._name = name
        self._tree = tree
        for file in ("/etc/resolv.conf", "/etc/hosts"):
            self.copy(pathlib.Path(file), file)
        policy = tree / "usr/sbin/policy-rc.d"
        policy.write_text("#!/bin/sh\nexit 101\n", encoding="utf-8")  # packages start no services
        policy.chmod(0o755)
        for options in (
            ("--bind", str(tree), str(tree)),
            ("--rbind", "/dev", f"{tree}/dev"),
            ("--rbind", "/sys", f"{tree}/sys"),
            ("--types", "proc", "proc", f"{tree}/proc"),
        ):
            subprocess.run(["mount", *options], check=True)
        self._environment = {name: os.environ[name] for name in KEPT if name in os.environ}
        self._environment |= {"HOME": "/root", "LANG": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
        self._environment["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        if "PIP_CERT" in os.environ:
            self.copy(pathlib.Path(os.environ["PIP_CERT"]), CERTIFICATES)
            self._environment["PIP_CERT"] = CERTIFICATES

    def copy(self, file: pathlib.Path, target: str) -> None:
        """Copy a file of this machine to the path `target` in the tree."""
        copied = pathlib.Path(f"{self._tree}{target}")
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, copied)

    def run(self, *command: str, directory: str = "/root", shown: bool = True) -> str:
        """Run a command in the tree and return what it prints.

        :raises SystemExit: it fails
        """
        print(f"\n{self._name}# {' '.join(command)}", flush=True)
        process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", ENTER, "sh", self._tree, directory, *command],
            env=self._environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        lines = []
        for line in process.stdout or ():
            if shown:
                print(line, end="", flush=True)
            lines.append(line)
        if process.wait():
            sys.exit(f"fresh: '{command[0]}' ended with exit code {process.returncode} on {self._name}")
        return "".join(lines)

    def install(self, *packages: str) -> None:
        """Install packages of the distribution."""
        quietly = 'apt-get -qq update && apt-get -qq install -y --no-install-recommends "$@" > /dev/null'
        self.run("sh", "-c", quietly, "sh", *packages)


def install_wheel(machine: Machine, wheel: pathlib.Path) -> None:
    """Install the wheel beside the distribution's packages, without a compiler.

    :raises SystemExit: it cannot be installed, or pip would hide a package of the distribution
    """
    machine.copy(wheel, f"/root/{wheel.name}")
    machine.run("python3", "-m", "venv", "--system-site-packages", ENVIRONMENT)
    pip = (f"{ENVIRONMENT}/bin/python", "-m", "pip", "--disable-pip-version-check")
    before = packages(machine.run(*pip, "list", "--format=json", shown=False))
    machine.run(*pip, "install", "--quiet", "--only-binary", ":all:", f"/root/{wheel.name}")
    after = packages(machine.run(*pip, "list", "--format=json", shown=False))
    if replaced := {name: (before[name], after.get(name)) for name in before if after.get(name) != before[name]}:
        sys.exit(f"fresh: pip replaced packages of the distribution: {replaced}")
    print(f"fresh: pip installed {', '.join(sorted(after.keys() - before.keys()))}, and replaced nothing")


def packages(listing: str) -> dict[str, str]:
    """Return the version of each package in a listing of pip."""
    return {package["name"]: package["version"] for package in json.loads(listing)}


def run_tasks(machine: Machine, *tests_to_run: str) -> str:
    """Run the README's tasks from the sources, all tests or only some; the last line of the tests."""
    for name in sources():
        machine.copy(ROOT / name, f"{PROJECT}/{name}")
    machine.run("./dev", "demo", directory=PROJECT)
    tests = machine.run("./dev", "test", *tests_to_run, directory=PROJECT)
    return re.findall(r"^=+ (.* passed.*) =+$", tests, re.MULTILINE)[-1]


def sources() -> list[str]:
    """Return every file of the working tree that git does not ignore."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [name for name in listing.split("\0") if name and (ROOT / name).exists()]


def start_nova(machine: Machine) -> str:
    """Start the release's nova-compute with the driver, and load the driver; Nova's version."""
    version = machine.run(f"{ENVIRONMENT}/bin/vpmem-nova-compute", "--version").strip()
    machine.run(f"{ENVIRONMENT}/bin/python", "-c", LOAD)
    return version


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="./dev fresh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", metavar="NAME", help=f"{', '.join(DEBIAN)}, or a release of Ubuntu, such as noble")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--nova", action="store_true", help="install and start the release's nova-compute")
    what.add_argument("--arm64", action="store_true", help="a release of Debian for arm64: the demo and the unit tests")
    parser.add_argument("--inside", type=pathlib.Path, help=argparse.SUPPRESS)  # the empty directory for the tree
    return parser.parse_args()


def run_inside(arguments: argparse.Namespace) -> None:
    """Make the tree and run the tasks in it. All that this mounts disappears with this process."""
    machine = Machine(arguments.name, debootstrap(arguments.name, arguments.inside, arm64=arguments.arm64))
    python = machine.run("python3", "--version").strip()
    machine.install("python3-venv", "python3-libvirt", *(["nova-compute"] if arguments.nova else []))
    if arguments.arm64:
        tests = run_tasks(machine, "tests/unit", *(f"--deselect={test}" for test in NOT_EMULATED))
        result = f"on {machine.run('uname', '-m').strip()}; {tests}"
    else:
        result = f"the wheel installs; {run_wheel(machine, arguments)}"
    print(f"\nfresh: {arguments.name}, {python}: {result}")


def run_wheel(machine: Machine, arguments: argparse.Namespace) -> str:
    """Install the wheel and run what was asked for."""
    install_wheel(machine, the_wheel())
    if arguments.nova:
        return f"Nova {start_nova(machine)}"
    machine.run(f"{ENVIRONMENT}/bin/vpmem", "demo")
    return run_tasks(machine)


def the_wheel() -> pathlib.Path:
    """Return the wheel of dist/. :raises SystemExit: there is none, or more than one."""
    wheels = list((ROOT / "dist").glob("vpmem_driver-*.whl"))
    if len(wheels) != 1:
        sys.exit("fresh: dist/ does not have one wheel. Run './dev wheel' first")
    return wheels[0]


def require_arm64(name: str) -> None:
    """Check that `name` has an arm64 here, and that this kernel runs its programs.

    :raises SystemExit: it cannot
    """
    if name not in DEBIAN:
        sys.exit(f"fresh: --arm64 is for Debian's releases: {', '.join(DEBIAN)}")
    if platform.machine() == "aarch64":
        return
    if not EMULATION.exists() and shutil.which("update-binfmts"):
        subprocess.run(["update-binfmts", "--enable", "qemu-aarch64"], check=False)
    if not EMULATION.exists():
        sys.exit("fresh: the kernel does not run arm64 programs. Install qemu-user-static and binfmt-support")
    emulator = pathlib.Path(
        EMULATION.read_text(encoding="utf-8").partition("interpreter ")[2].splitlines()[0]
    ).resolve()
    told = subprocess.run([emulator, "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout
    version = tuple(int(number) for number in re.findall(r"version (\d+)\.(\d+)", told)[0])
    if version < QEMU_WITH_DC_CVAP:
        sys.exit(
            f"fresh: {emulator} is {version[0]}.{version[1]}, and ends programs with SIGILL at DC CVAP, an instruction "
            "that it says it has. Register 8.1 or newer with binfmt_misc: Debian 13's qemu-user is static"
        )


def main() -> None:
    """Run this program again in namespaces of its own, and remove the tree afterwards."""
    arguments = parse()
    if not arguments.arm64:
        the_wheel()
    if os.geteuid() != 0:
        sys.exit("fresh: debootstrap needs root. Run this with sudo")
    if arguments.inside:
        run_inside(arguments)
        return
    if arguments.arm64:
        require_arm64(arguments.name)
    scratch = tempfile.mkdtemp(prefix="vpmem-fresh-", dir="/var/tmp")
    try:
        command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        done = subprocess.run([*command, sys.executable, *sys.argv, "--inside", scratch], check=False)
    finally:
        if scratch in pathlib.Path("/proc/self/mountinfo").read_text(encoding="utf-8"):
            sys.exit(f"fresh: something is still mounted below {scratch}. Unmount it, then remove the directory")
        shutil.rmtree(scratch)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
