"""Reading configuration files: what cannot be read or used ends in a typed error, and no line of a file is repeated."""

import contextlib
import io
import pathlib
import traceback

import oslo_config.generator
import pytest
from oslo_config import cfg

from vpmem_driver import conf, exception


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "vpmem.conf"


def failure(*files: pathlib.Path) -> exception.ConfigurationError:
    with pytest.raises(exception.ConfigurationError) as caught:
        conf.read(map(str, files))
    return caught.value


def test_files_in_their_order(tmp_path: pathlib.Path) -> None:
    first, second = tmp_path / "a.conf", tmp_path / "-b.conf"
    first.write_text("[vpmem]\nwipe_rate = 1\nwipe_threads = 3\n")
    second.write_text("[vpmem]\nwipe_rate = 2\n[libvirt]\npmem_namespaces = A:ns0|ns1,B:ns2\n")
    options = conf.read([str(first), str(second)])
    assert (options.vpmem.wipe_rate, options.vpmem.wipe_threads) == (2, 3)
    assert options.libvirt.pmem_namespaces == ["A:ns0|ns1", "B:ns2"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[vpmem]\nhunter2\n", 2),
        ("hunter2 = hunter2\n", 1),
        ("[vpmem]\n\n  hunter2\n", 3),
        ("[hunter2\n", 1),
        ("[vpmem]\n= hunter2\n", 2),
    ],
)
def test_parse_errors_echo_the_line_with_a_password(file: pathlib.Path, text: str, line: int) -> None:
    file.write_text(text)
    failed = failure(file)
    assert str(file) in str(failed)
    assert f"line {line}" in str(failed)
    assert "hunter2" not in "".join(traceback.format_exception(failed))


def test_a_directory(file: pathlib.Path) -> None:
    file.mkdir()
    assert f"{file}: Is a directory" in str(failure(file))


def test_what_is_not_utf_8(file: pathlib.Path) -> None:
    file.write_bytes(b"[vpmem]\nconnection_uri = \xff\n")
    assert f"{file} is not UTF-8 text" in str(failure(file))


def test_what_is_not_there(file: pathlib.Path) -> None:
    assert str(file) in str(failure(file))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('wipe_command = sudo "vpmem-wipe', "wipe_command: No closing quotation"),
        ("wipe_command = sudo \0", "wipe_command: it contains unprintable"),
        ("state_path = /var/lib\0/vpmem", "state_path: it contains unprintable"),
        ("state_path =", "state_path: '' is not an absolute path"),
        ("state_path = state", "state_path: 'state' is not an absolute path"),
        ("state_path = $state_path", "state_path: maximum recursion"),
        ("directory = $nosuch", "directory: no such option nosuch"),
        ("directory = /a\tb", "directory: it contains unprintable"),
        ("connection_uri = qemu:///\x1bsystem", "connection_uri: it contains unprintable"),
        ("wipe_parallel = 0", "wipe_parallel: Should be greater"),
        (f"wipe_threads = {'9' * 5000}", "wipe_threads: Exceeds the limit"),
        ("wipe_parallel =", "wipe_parallel: a number is missing"),
        ("wipe_threads =", "wipe_threads: a number is missing"),
        ("wipe_rate =", "wipe_rate: a number is missing"),
        (f"wipe_rate = {'9' * 30}", "wipe_rate: Should be less"),
        ("history_days = -1", "history_days: Should be greater"),
        ("export_path = shared", "export_path: 'shared' is not an absolute path"),
        ("history_days =", "history_days: a number is missing"),
        ("discovery = guess", "discovery: "),
    ],
    ids=lambda text: text[:20],
)
def test_a_value_that_cannot_be(file: pathlib.Path, line: str, said: str) -> None:
    file.write_text(f"[vpmem]\n{line}\n")
    failed = failure(file)
    assert f"[vpmem] {said}" in str(failed)
    assert len(str(failed)) < 200


def test_one_file_and_nothing_else(file: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OS_VPMEM__WIPE_RATE", "9")
    monkeypatch.setenv("HOME", str(file.parent))
    (file.parent / ".vpmem").mkdir()
    (file.parent / ".vpmem" / "vpmem.conf").write_text("[vpmem]\nwipe_threads = 9\n")
    options = conf.read_file_only(str(file))
    assert (options.vpmem.wipe_rate, options.vpmem.wipe_threads) == (0, 0)
    with pytest.raises(exception.InvalidConfigFile, match=str(file)):
        conf.read_file_only(str(file), required=True)
    file.write_text("[vpmem]\nwipe_rate = 3\n")
    assert conf.read_file_only(str(file), required=True).vpmem.wipe_rate == 3
    file.write_bytes(b"[vpmem]\n# \xff\n")
    with pytest.raises(exception.InvalidConfigFile, match=f"{file} is not UTF-8"):
        conf.read_file_only(str(file))


@pytest.mark.parametrize("value", ['"', "\0"])
def test_nova_finds_an_open_quote_when_it_reads_the_value(file: pathlib.Path, value: str) -> None:
    file.write_text(f"[vpmem]\nwipe_command = a {value}\n")
    options = cfg.ConfigOpts()
    conf.register_opts(options)
    options([], default_config_files=[str(file)])
    with pytest.raises(cfg.Error):
        _ = options.vpmem.wipe_command


def test_the_sample_has_every_option() -> None:
    out = io.StringIO()
    generator = cfg.ConfigOpts()
    oslo_config.generator.register_cli_opts(generator)
    generator(["--namespace", "vpmem_driver"], default_config_files=[])
    with contextlib.redirect_stdout(out):
        oslo_config.generator.generate(generator, out)
    for opt in conf.VPMEM_OPTS:
        assert f"#{opt.name} = " in out.getvalue()
