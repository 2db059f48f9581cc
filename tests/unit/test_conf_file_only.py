"""What root runs for others is configured by one file, and by nothing else."""

import pytest

from vpmem_driver import conf, exception


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "vpmem.conf"
    path.write_text("[libvirt]\npmem_namespaces = A:ns0\n[vpmem]\ndirectory = /ours\n")
    return path


def test_the_environment_configured_it(file, monkeypatch):
    monkeypatch.setenv("OS_VPMEM__DIRECTORY", "/theirs")
    monkeypatch.setenv("OS_VPMEM__STATE_PATH", "/theirs")
    options = conf.read_file_only(str(file))
    assert options.libvirt.pmem_namespaces == ["A:ns0"]
    assert (options.vpmem.directory, options.vpmem.state_path) == ("/ours", "/var/lib/vpmem")


@pytest.mark.parametrize("name", ["vpmem.conf", "vpmem.conf.d/x.conf"])
@pytest.mark.parametrize("required", [True, False])
def test_a_file_in_the_home_directory_configured_it(file, monkeypatch, tmp_path, name, required):
    for directory in (".vpmem", "."):
        path = tmp_path / "home" / directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("[vpmem]\nstate_path = /theirs\n")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert conf.read_file_only(str(file), required=required).vpmem.state_path == "/var/lib/vpmem"


def test_a_file_that_is_not_there(tmp_path):
    path = str(tmp_path / "none.conf")
    assert conf.read_file_only(path).vpmem.state_path == "/var/lib/vpmem"
    with pytest.raises(exception.InvalidConfigFile, match=r"none\.conf"):
        conf.read_file_only(path, required=True)


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("kind", ["directory", "not UTF-8", "no configuration", "a link to nowhere"])
def test_a_file_that_cannot_be_read(tmp_path, kind, required):
    path = tmp_path / "vpmem.conf"
    match kind:
        case "directory":
            path.mkdir()
        case "not UTF-8":
            path.write_bytes(b"[vpmem]\ndirectory = /\xff\n")
        case "no configuration":
            path.write_text("neither this\n")
        case "a link to nowhere":
            path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(exception.InvalidConfigFile):
        conf.read_file_only(str(path), required=required)
