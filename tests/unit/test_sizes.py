"""Sizes as ndctl prints them, and as people write them."""

import pytest

from vpmem_driver import sizes
from vpmem_driver.sizes import GIB, KIB, MIB


@pytest.mark.parametrize(
    ("size", "short", "full"),
    [
        # as "size" of ndctl list --human (ndctl 76.1) on namespaces of these sizes
        (0, "0", "0"),
        (4 * MIB, "4194304", "4194304"),
        (5000 * KIB - 1, "5119999", "5119999"),
        (5000 * KIB, "4.88 MiB", "4.88 MiB (5.12 MB)"),
        (262144000, "250.00 MiB", "250.00 MiB (262.14 MB)"),
        (2 * GIB - 1, "2048.00 MiB", "2048.00 MiB (2147.48 MB)"),
        (2 * GIB, "2.00 GiB", "2.00 GiB (2.15 GB)"),
        (16 * GIB, "16.00 GiB", "16.00 GiB (17.18 GB)"),
        (1500 * GIB, "1500.00 GiB", "1500.00 GiB (1610.61 GB)"),
    ],
)
def test_as_ndctl_prints_them(size, short, full):
    assert (sizes.text(size), sizes.long_text(size)) == (short, full)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4G", 4 * GIB),
        ("4GiB", 4 * GIB),
        ("4g", 4 * GIB),
        ("512MiB", 512 * MIB),
        ("512 MiB", 512 * MIB),
        (" 1T ", 1024 * GIB),
        ("64", 64 * MIB),
        ("2048K", 2 * MIB),
    ],
)
def test_as_people_write_them(text, size):
    assert sizes.parse(text, MIB) == size


@pytest.mark.parametrize(
    "text", ["", "G", "4GB", "-1", "0", "0G", "1.5G", "4X", "4 G iB", "9" * 5000, "9999999T", "٤G", "4G\0", "\udcff"]
)
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="it is not a size"):
        sizes.parse(text)


def test_speeds():
    assert sizes.speed_text(1000) == "0.00 MiB/s"
    assert sizes.speed_text(300 * MIB) == "300.00 MiB/s"
    assert sizes.speed_text(3.5 * GIB) == "3.50 GiB/s"
