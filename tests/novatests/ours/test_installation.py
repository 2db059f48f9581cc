"""Nova in one prefix, this package in another: the driver is found by vpmem-nova-compute, and what is wrong is said."""

import os
import pathlib
import shutil
import subprocess
import sysconfig
import venv
from unittest import mock

import fixtures
import nova
import nova.tests.functional  # first of Nova's: it patches with eventlet, or forbids it
from nova import test
from nova.virt.libvirt import driver
from oslo_utils import importutils

import vpmem_driver
from vpmem_driver import ledger
from vpmem_driver.nova import installation, known_methods
from vpmem_driver.nova.mixin import VPMEMDriverMixin

#: What belongs to this package in the prefix of the tests.
OURS = ("vpmem_driver", "vpmem_driver-*", "__editable__*", "vpmem_dev.pth", "easy-install.pth")

#: The real nova-compute first asks a conductor, which there is none of; then it loads its driver like this.
LOAD = """
import sys
from nova.cmd import compute
from nova import config, objects
from nova.virt import driver

def main():
    config.parse_args(sys.argv)
    objects.register_all()
    print("loaded", type(driver.load_compute_driver(None)).__name__)

compute.main = main
"""
OURS_MAIN = "import sys; from vpmem_driver.nova import compute as ours; sys.exit(ours.main())"


class OtherPrefixTest(test.NoDBTestCase):
    def setUp(self):
        super().setUp()
        self.root = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.python = self.root / "venv/bin/python"
        venv.create(self.root / "venv")
        (self.site,) = (self.root / "venv").glob("lib/python3*/site-packages")

        self.elsewhere = self.root / "dist-packages"
        self.elsewhere.mkdir()
        for path in pathlib.Path(sysconfig.get_path("purelib")).iterdir():
            if path.name != "nova" and not any(path.match(pattern) for pattern in OURS):
                (self.elsewhere / path.name).symlink_to(path)
        (self.site / "elsewhere.pth").write_text(f"{self.elsewhere}\n")

    def have_nova(self):
        """Nova without this package, in a directory of its own that the environment sees."""
        without = shutil.ignore_patterns("vpmem", "tests", "locale", "__pycache__")
        shutil.copytree(pathlib.Path(nova.__file__).parent, self.elsewhere / "nova", ignore=without)

    def have_vpmem(self, *, whole=True):
        (self.site / "vpmem_driver").symlink_to(pathlib.Path(vpmem_driver.__file__).parent)
        if whole:
            module = importutils.import_module("nova.virt.vpmem")
            shutil.copytree(pathlib.Path(module.__file__).parent, self.site / "nova/virt/vpmem")

    def configure(self):
        """A host of files, and the rest as nova-compute wants it; there is no conductor to be reached."""
        directory = self.root / "pmem"
        directory.mkdir()
        (directory / "ns0").write_bytes(bytes(4 << 20))
        options = {
            "DEFAULT": {
                "compute_driver": "vpmem.VPMEMLibvirtDriver",
                "state_path": self.root,
            },
            "libvirt": {"pmem_namespaces": "SMALL:ns0", "virt_type": "qemu"},
            "vpmem": {"discovery": "directory", "directory": directory, "state_path": self.root / "state"},
        }
        path = self.root / "nova.conf"
        path.write_text(
            "".join(
                f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in values.items())
                for group, values in options.items()
            )
        )
        return path

    def said(self, program, *words):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        done = subprocess.run(
            [self.python, "-c", program, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.root,
            env=environment,
            check=False,
        )
        return done.stdout, done.returncode

    def test_the_driver_is_found_and_opens_its_pool(self):
        self.have_nova()
        self.have_vpmem()
        said, code = self.said(LOAD + OURS_MAIN, "--config-file", str(self.configure()))
        self.assertIn("loaded VPMEMLibvirtDriver", said)
        self.assertEqual(0, code)
        self.assertTrue((self.root / "state" / ledger.FILE_NAME).exists())

    def test_novas_own_program_does_not_find_it(self):
        self.have_nova()
        self.have_vpmem()
        said, code = self.said(LOAD + "compute.main()", "--config-file", str(self.configure()))
        self.assertIn("Unable to load the virtualization driver", said)
        self.assertEqual(1, code)

    def test_there_is_no_nova(self):
        self.have_vpmem()
        said, code = self.said(OURS_MAIN)
        self.assertIn("does not find Nova", said)
        self.assertIn("--system-site-packages", said)
        self.assertEqual(5, code)

    def test_the_package_is_not_from_its_wheel(self):
        self.have_nova()
        self.have_vpmem(whole=False)
        said, code = self.said(OURS_MAIN)
        self.assertIn("Install this package from its wheel", said)
        self.assertEqual(5, code)


class KnownMethodsTest(test.NoDBTestCase):
    def test_every_method_that_the_driver_overrides_is_known(self):
        overridden = {
            name
            for mixin in VPMEMDriverMixin.__mro__[:-1]
            for name, value in vars(mixin).items()
            if callable(value) and not name.startswith("__") and hasattr(driver.LibvirtDriver, name)
        }
        self.assertEqual(overridden, known_methods.record().keys())
        installation.warn_of_an_untested_nova()
        self.assertNotIn("not the same", self.stdlog.logger.output)

    def test_an_unknown_method_is_named_at_the_start(self):
        recorded = known_methods.record()
        recorded["_hard_reboot"] = {known_methods.Method("self", "other"): ["1.0"]}
        with mock.patch.object(known_methods, "record", return_value=recorded):
            installation.warn_of_an_untested_nova()
        self.assertIn("tested with: _hard_reboot. Test both", self.stdlog.logger.output)
