"""Choosing a discovery by its name and by configuration."""

import pathlib

import pytest
from oslo_config import cfg

from tests.unit.discovery import hosts
from vpmem_driver import conf as options
from vpmem_driver import discovery, exception


def configured(**values: str) -> cfg.ConfigOpts:
    conf = cfg.ConfigOpts()
    options.register_opts(conf)
    conf([], default_config_files=[])
    for name, value in values.items():
        conf.set_override(name, value, group="vpmem")
    return conf


def test_default_is_ndctl() -> None:
    made = discovery.from_conf(configured())
    assert (made.name, made.options()) == ("ndctl", {})


def test_sysfs() -> None:
    made = discovery.from_conf(configured(discovery="sysfs"))
    assert (made.name, made.options()) == ("sysfs", {})


def test_directory(tmp_path: pathlib.Path) -> None:
    path = hosts.allocated(tmp_path / hosts.new_name())
    made = discovery.from_conf(configured(discovery="directory", directory=str(tmp_path)))
    assert (made.name, made.options()) == ("directory", {"directory": str(tmp_path)})
    assert [each.name for each in made.namespaces()] == [path.name]


def test_a_directory_is_of_no_use_to_the_others(tmp_path: pathlib.Path) -> None:
    assert discovery.from_conf(configured(discovery="sysfs", directory=str(tmp_path))).name == "sysfs"


@pytest.mark.parametrize("values", [{}, {"directory": ""}])
def test_directory_without_a_directory(values: dict[str, str]) -> None:
    with pytest.raises(exception.InvalidOption) as failed:
        discovery.from_conf(configured(discovery="directory", **values))
    assert str(failed.value).startswith("[vpmem] directory: it is not set, but discovery = directory needs it. Set it")


def test_directory_with_a_relative_one() -> None:
    with pytest.raises(exception.InvalidOption, match=r"\[vpmem\] directory: 'a/b' is a relative path. Set it to"):
        discovery.from_conf(configured(discovery="directory", directory="a/b"))


def test_unknown_name() -> None:
    with pytest.raises(exception.InvalidOption, match="Choose one of ndctl, sysfs, directory"):
        discovery.make("dmi")


@pytest.mark.parametrize(("name", "given"), [("ndctl", "run"), ("sysfs", "directory"), ("directory", "run")])
def test_unknown_option(name: str, given: str) -> None:
    with pytest.raises(exception.InvalidOption, match=rf"\[vpmem\] {given}: discovery = {name} has no such option"):
        discovery.make(name, **{given: "/x"})


def test_an_option_called_name_raised_typeerror() -> None:
    with pytest.raises(exception.InvalidOption, match=r"\[vpmem\] name: discovery = sysfs has no such option"):
        discovery.make("sysfs", name="x")


def test_two_of_them_live_side_by_side(tmp_path: pathlib.Path) -> None:
    paths = [hosts.allocated(tmp_path / where / hosts.new_name()) for where in ("first", "second")]
    made = [discovery.from_conf(configured(discovery="directory", directory=str(path.parent))) for path in paths]
    assert [[each.name for each in one.namespaces()] for one in made] == [[path.name] for path in paths]
