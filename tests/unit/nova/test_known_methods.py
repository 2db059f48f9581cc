"""Which methods of Nova are known. Nova itself is not needed for that."""

import importlib.util
import pathlib

import pytest

from vpmem_driver.nova import known_methods
from vpmem_driver.nova.known_methods import Method, methods, record, unknown

SOURCE = '''
class Other:
    def spawn(self):
        pass


class LibvirtDriver(Other):
    def spawn(self, context, power_on=True):
        """Start."""
        return context

    @staticmethod
    def helper(value: 'str') -> None:
        pass

    def other(self):
        pass
'''
NAMES = ("spawn", "helper", "absent")


def tool():
    path = pathlib.Path(__file__).parents[3] / "tools" / "nova_master.py"
    spec = importlib.util.spec_from_file_location("nova_master", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_named_methods_of_the_class():
    found = methods(SOURCE, NAMES)
    assert {name: method.signature for name, method in found.items()} == {
        "spawn": "self, context, power_on=True",
        "helper": "value: 'str'",
        "absent": "",
    }
    assert len({method.body for method in found.values()}) == 3


def known():
    return {name: [method] for name, method in methods(SOURCE, NAMES).items()}


def test_the_same_source_is_known():
    assert unknown(SOURCE, known()) == []
    assert unknown(SOURCE + "\n# More.\n", known()) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return context", "return None"),
        ("power_on=True", "power_on=False"),
        ("spawn(self, context", "spawn(self, context, instance"),
        ("def spawn(self, context", "def start(self, context"),
        ("        return context\n", ""),
    ],
)
def test_a_changed_method_is_named(old, new):
    changed = SOURCE.replace(old, new)
    assert changed != SOURCE
    assert unknown(changed, known()) == ["spawn"]


def test_it_may_be_that_of_any_release():
    other = {name: [Method("self", "0" * 16), *known] for name, known in known().items()}
    assert unknown(SOURCE, other) == []


def test_what_the_mixins_override_is_recorded_for_every_supported_release():
    recorded = record()
    assert recorded.keys() < tool().overridden()
    assert {"spawn", "cleanup", "_hard_reboot", "_cleanup_vpmems", "init_host"} <= recorded.keys()
    for name, known in recorded.items():
        releases = [release for named in known.values() for release in named]
        assert {release.partition(".")[0] for release in releases} == {"31", "32", "33", "34"}, name
        assert len(releases) == len(set(releases)), name


def test_what_changed_is_said():
    before, difference = Method("self", "1"), tool().difference
    assert "does not exist any more" in difference(before, known_methods.ABSENT)
    assert "other parameters (self, new instead of self)" in difference(before, Method("self, new", "1"))
    assert "another body" in difference(before, Method("self", "2"))


def test_releases_are_in_the_order_of_their_numbers():
    assert sorted(["31.10.0", "31.9.1", "4.0.0"], key=tool().numbers) == ["4.0.0", "31.9.1", "31.10.0"]


def test_the_record_is_part_of_the_package():
    assert known_methods.RECORD.parent == pathlib.Path(known_methods.__file__).parent
    assert known_methods.RECORD.is_file()
