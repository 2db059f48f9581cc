"""Which hardware a claim chooses, and what the options may say."""

import types

import pytest

from vpmem_driver import exception
from vpmem_driver.model import IN_TREE, DeviceModel, Hardware
from vpmem_driver.pool import hardware, labels
from vpmem_driver.sizes import KIB, MIB

LABELS = labels.parse(["DISK:disk0", "dax-2M:ns0"])

NVDIMM, VIRTIO_PMEM = DeviceModel.NVDIMM, DeviceModel.VIRTIO_PMEM


def namespace(mode="file", *, pmem=False):
    return types.SimpleNamespace(uuid="u", name="ns0", mode=mode, pmem=pmem, owner=None)


def choice(models=(), sizes=(), *, starts=True):
    return hardware.HardwareChoice(hardware.parse(models, sizes, LABELS), starts_virtio_pmem=lambda: starts)


@pytest.mark.parametrize(
    ("of", "starts", "wanted"),
    [
        (namespace(), True, Hardware(VIRTIO_PMEM, 0)),
        (namespace(), False, IN_TREE),
        (namespace(pmem=True), True, IN_TREE),
        (namespace("devdax", pmem=True), True, IN_TREE),
        (namespace("devdax"), True, IN_TREE),
    ],
)
def test_the_default(of, starts, wanted):
    assert choice(starts=starts).choose(of, "DISK") == wanted


@pytest.mark.parametrize(
    ("models", "sizes", "label", "wanted"),
    [
        (["nvdimm"], [], "DISK", IN_TREE),
        (["DISK:nvdimm"], [], "disk", IN_TREE),
        (["DISK:nvdimm"], [], "dax-2M", Hardware(VIRTIO_PMEM, 0)),
        (["nvdimm", "dax_2m:virtio-pmem"], [], "dax-2M", Hardware(VIRTIO_PMEM, 0)),
        (["nvdimm"], ["0"], "DISK", Hardware(NVDIMM, 0)),
        (["nvdimm"], ["128KiB", " DISK : 1M"], "DISK", Hardware(NVDIMM, MIB)),
        (["nvdimm"], ["128KiB", "DISK:0"], None, Hardware(NVDIMM, 128 * KIB)),
        ([], ["128KiB"], "DISK", Hardware(VIRTIO_PMEM, 0)),
        (["DISK:virtio-pmem"], ["DISK:0"], "DISK", Hardware(VIRTIO_PMEM, 0)),
    ],
)
def test_the_options(models, sizes, label, wanted):
    assert choice(models, sizes).choose(namespace(), label) == wanted
    assert choice(models, sizes).expected(namespace(), label) == wanted


@pytest.mark.parametrize(
    ("models", "sizes", "said"),
    [
        (["DISK:dimm"], [], "[vpmem] device_model: 'DISK:dimm': the model must be nvdimm or virtio-pmem"),
        (["DISK:"], [], "[vpmem] device_model: 'DISK:': the model must be nvdimm or virtio-pmem"),
        (["OTHER:nvdimm"], [], "[vpmem] device_model: 'OTHER:nvdimm': no such label"),
        (["DISK:nvdimm", "disk:nvdimm"], [], "[vpmem] device_model: 'disk:nvdimm' is the second entry for its label"),
        (["nvdimm", "nvdimm"], [], "[vpmem] device_model: 'nvdimm' is the second entry for its label"),
        ([], ["DISK:64KiB"], "[vpmem] label_size: 'DISK:64KiB': a label area has 131072 bytes to 2097152 bytes"),
        ([], ["DISK:4MiB"], "[vpmem] label_size: 'DISK:4MiB': a label area has 131072 bytes to 2097152 bytes"),
        ([], ["130KiB"], "in steps of 4 KiB, or 0 for none"),
        ([], ["DISK:x"], "[vpmem] label_size: 'DISK:x': it is not a size"),
        ([], ["-1"], "[vpmem] label_size: '-1': it is not a size"),
        (["DISK:virtio-pmem"], ["DISK:2M"], "[vpmem] label_size: DISK: a virtio-pmem has no label area"),
        (["virtio-pmem"], ["2M"], "[vpmem] label_size: all labels: a virtio-pmem has no label area"),
    ],
)
def test_what_the_options_must_not_say(models, sizes, said):
    with pytest.raises(exception.InvalidOption) as error:
        hardware.parse(models, sizes, LABELS)
    assert said in str(error.value)


def test_the_labels_are_in_the_message():
    with pytest.raises(exception.InvalidOption, match=r"Labels of \[libvirt\] pmem_namespaces: DISK, dax-2M"):
        hardware.parse(["OTHER:nvdimm"], [], LABELS)


@pytest.mark.parametrize(
    ("of", "starts", "said"),
    [
        (namespace("devdax"), True, "ns0: virtio-pmem is for files, and this is a namespace in mode devdax"),
        (namespace(), False, "ns0: this libvirt does not start guests with virtio-pmem"),
    ],
)
def test_a_virtio_pmem_that_is_impossible(of, starts, said):
    with pytest.raises(exception.InvalidOption, match=said):
        choice(["virtio-pmem"], starts=starts).choose(of, "DISK")
    with pytest.raises(exception.NamespaceUnavailable):
        choice(starts=starts).require_possible(of, Hardware(VIRTIO_PMEM, 0))
    choice(starts=starts).require_possible(of, IN_TREE)


@pytest.mark.parametrize(
    ("models", "modes", "asked"),
    [
        ([], ["file", "file"], 1),
        (["DISK:nvdimm"], ["file"], 1),
        (["nvdimm", "DISK:virtio-pmem"], ["file"], 1),
        (["nvdimm"], ["file"], 0),
        ([], ["devdax"], 0),
    ],
)
def test_libvirt_is_asked_once_and_only_if_it_matters(models, modes, asked):
    calls = []
    made = hardware.HardwareChoice(
        hardware.parse(models, [], LABELS), starts_virtio_pmem=lambda: calls.append("asked") is None
    )
    made.prepare(modes)
    made.prepare(modes)
    assert len(calls) == asked
