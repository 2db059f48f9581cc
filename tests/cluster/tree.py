"""The Debian tree that every host's root directory is an overlay of, and this project's package for it."""

import hashlib
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable

from tests.machine import commands

ROOT = pathlib.Path(__file__).resolve().parents[2]

#: Debian 13, which has Nova 31 and this Python.
SUITE, _PYTHON = "trixie", "3.13"

_PACKAGES = (
    *("mariadb-server", "rabbitmq-server", "keystone", "glance", "placement-api", "neutron-server"),
    *("nova-api", "nova-conductor", "nova-scheduler", "uwsgi-core", "uwsgi-plugin-python3", "python3-pymysql"),
    *("python3-openstackclient", "python3-openstacksdk"),
    *("nova-compute", "nova-compute-kvm", "libvirt-clients", "openssh-client", "openssh-server", "sudo"),
    *("iproute2", "less", "procps"),
    *("python3-libvirt", "python3-cliff", "python3-lxml", "python3-msgspec", "python3-os-resource-classes"),
    *("python3-rich", "python3-venv"),
)

#: Debian's own package of it says that it is version 0.0.0.
_FROM_PYPI = ("xxhash",)

#: What the package is built from.
_SOURCES = ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "vpmem_driver", "packaging")

#: Services are started by the cluster, not by their packages.
_INSTALL = r"""
set -e
tree=$1
shift
cp /etc/resolv.conf "$tree/etc/resolv.conf"
printf '#!/bin/sh\nexit 101\n' > "$tree/usr/sbin/policy-rc.d"
chmod 755 "$tree/usr/sbin/policy-rc.d"
mount -t proc proc "$tree/proc"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
chroot "$tree" apt-get -q update
chroot "$tree" apt-get -q -o Dpkg::Options::=--force-unsafe-io install -y --no-install-recommends "$@"
chroot "$tree" apt-get clean
"""

#: Beside Nova's own packages, and in a path that sudo and rootwrap know.
_ADD_PACKAGE = r"""
set -e
scratch=$1 tree=$2
mkdir "$scratch/root" "$scratch/work"
mount -t overlay overlay -o "lowerdir=$tree,upperdir=$scratch/files,workdir=$scratch/work" "$scratch/root"
mount -t tmpfs tmpfs "$scratch/root/tmp"
mount -t proc proc "$scratch/root/proc"
cp "$3"/*.whl "$scratch/root/tmp"
chroot "$scratch/root" env -i PATH=/usr/sbin:/usr/bin LC_ALL=C.UTF-8 sh -ec '
python3 -m venv --system-site-packages /opt/vpmem
/opt/vpmem/bin/python -m pip --quiet --disable-pip-version-check install --no-index /tmp/*.whl
ln -s /opt/vpmem/bin/vpmem* /usr/local/bin/
'
"""


def layers(work: pathlib.Path, name: str = "cluster", packages: tuple[str, ...] = _PACKAGES) -> list[pathlib.Path]:
    """The directories that hosts are overlays of, the top one first; made below `work` when they are not there.

    :param name: what they begin with
    :param packages: Debian's, in the lower one
    """
    digest = digest_of([SUITE, _INSTALL, *packages])
    tree = made(work / f"{name}-tree", digest, lambda home: _make_tree(home, packages))
    files = [path for name in _SOURCES for path in sorted([ROOT / name, *(ROOT / name).rglob("*")])]
    sources = [path.read_bytes() for path in files if path.is_file() and path.suffix not in {".so", ".c", ".pyc"}]
    digest = digest_of([(tree.parent / "digest").read_text(), _ADD_PACKAGE, *sources])
    return [made(work / f"{name}-package", digest, lambda home: _make_package(home, tree)), tree]


def digest_of(parts: list[str | bytes]) -> str:
    """One digest of all parts, in their order."""
    state = hashlib.sha256()
    for part in parts:
        state.update(hashlib.sha256(part.encode() if isinstance(part, str) else part).digest())
    return state.hexdigest()


def made(home: pathlib.Path, digest: str, make: Callable[[pathlib.Path], None]) -> pathlib.Path:
    """`home`/files, which `make` fills, unless what is there was made of the same."""
    stamp = home / "digest"
    if not stamp.exists() or stamp.read_text() != digest:
        print(f"making {home}", flush=True)
        if home.exists():
            shutil.rmtree(home)
        (home / "files").mkdir(parents=True)
        make(home)
        stamp.write_text(digest)
    return home / "files"


def _isolated(*words: object) -> None:
    """Run a program, and end all that it leaves: its mounts too."""
    namespaces = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    commands.run(*namespaces, *(str(word) for word in words))


def _make_tree(home: pathlib.Path, packages: tuple[str, ...]) -> None:
    """Debian's mirror is the one of the machine if that is a Debian, and debootstrap's own otherwise."""
    known = commands.run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Identifier: Packages", "Origin: Debian")
    mirrors = [mirror for mirror in known.split() if not mirror.rstrip("/").endswith("-security")]
    _isolated("debootstrap", "--variant=minbase", SUITE, home / "files", *mirrors[:1])
    _isolated("sh", "-c", _INSTALL, "sh", home / "files", *packages)


def _make_package(home: pathlib.Path, tree: pathlib.Path) -> None:
    """One wheel serves every Python: it is built with this one."""
    pinned = f"PIP_CONSTRAINT={ROOT / 'requirements/constraints.txt'}"  # also what builds it
    pip = ("env", pinned, sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    with tempfile.TemporaryDirectory() as directory:
        source = pathlib.Path(directory, "source")  # a build leaves files in its source
        source.mkdir()
        commands.run("cp", "--recursive", *(ROOT / name for name in _SOURCES), source)
        commands.run(*pip, "wheel", "--no-deps", "--wheel-dir", directory, source)
        binary = ("--no-deps", "--only-binary", ":all:", "--python-version", _PYTHON)
        commands.run(*pip, "download", *binary, "--dest", directory, *_FROM_PYPI)
        _isolated("sh", "-c", _ADD_PACKAGE, "sh", home, tree, directory)
    for name in ("root", "work"):
        shutil.rmtree(home / name)
