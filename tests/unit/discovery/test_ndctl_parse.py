"""What ndctl list prints, in all its shapes."""

import json
import random
import uuid

import hypothesis
import pytest
from hypothesis import strategies as st

from tests.unit.discovery import hosts
from vpmem_driver import exception, model
from vpmem_driver.discovery import ndctl
from vpmem_driver.sizes import MIB


def recorded(name: str) -> str:
    return (hosts.DATA / "ndctl" / name).read_text()


def one(said: dict[str, object], **options: object) -> model.Namespace:
    """The one namespace of a listing."""
    (namespace,) = ndctl.parse(json.dumps([said]), **options)
    return namespace


# What a real host printed (ndctl 76.1): two regions, five devdax namespaces, one of each other mode.


def test_recorded_list() -> None:
    found = {each.name: each for each in ndctl.parse(recorded("ndctl-list-N.json"))}
    assert sorted(found, key=str) == [None, "big0", "fs0", "ns0", "ns1", "ns2", "raw0", "sec0"]
    assert found["ns0"] == model.Namespace(
        uuid="854abf5c-e586-11f1-93cc-99733b9ab34e",
        name="ns0",
        size=62 * MIB,
        align=2 * MIB,
        numa_node=None,  # told neither by this listing nor by a sysfs
        mode="devdax",
        device="/dev/dax0.0",
        pmem=True,
    )
    assert [name for name, each in found.items() if each.unusable is None] == ["big0", "ns0", "ns1", "ns2"]
    assert [found[name].mode for name in ("fs0", "raw0", "sec0")] == ["fsdax", "raw", "sector"]


@pytest.mark.parametrize("name", ["ndctl-list-X.json", "ndctl-list-Xi.json"])
def test_recorded_list_with_devices(name: str) -> None:
    found = {each.uuid: each for each in ndctl.parse(recorded(name))}
    for plain in ndctl.parse(recorded("ndctl-list-N.json")):
        if plain.mode == "devdax":
            with_device = found.pop(plain.uuid)
            assert with_device.numa_node == (0 if plain.name == "big0" else 1)
            assert (with_device.device, with_device.size, with_device.align, with_device.unusable) == (
                plain.device,
                plain.size,
                plain.align,
                plain.unusable,
            )
    assert not found


def test_recorded_list_as_it_is_asked_for() -> None:
    """What a host with two NUMA nodes and namespaces of every kind printed (ndctl 76.1, tests/lab)."""
    found = ndctl.parse(recorded("ndctl-list-verbose.json"), node_of=lambda dev: pytest.fail(f"{dev}: it was told"))
    assert [each.name for each in found if each.unusable is None] == [
        *("big", "churn0", "churn1", "churn2", "churn3", "dev", "fine", "guest", "mem", "off"),
        *("power0", "power1", "power2", "power3", "power4", "ram", "twin", "twin"),
    ]
    assert {each.name for each in found if each.numa_node == 1} == {
        *("big", "churn0", "churn1", "churn2", "churn3", "guest"),
        *("power0", "power1", "power2", "power3", "power4"),
    }
    (fine,) = [each for each in found if each.name == "fine"]
    assert (fine.size, fine.align, fine.device) == (30 * MIB, 4096, "/dev/dax1.2")


# Shapes


@pytest.mark.parametrize("text", ["", "\n", " \t\r\n ", "[]", "[\n]\n"])
def test_nothing_printed_is_no_namespaces(text: str) -> None:
    assert ndctl.parse(text) == ()


def shapes(said: list[dict[str, object]]) -> dict[str, object]:
    """The same namespaces as ndctl list prints them with these options (ndctl/list.c, list_display())."""
    regions = [{"dev": f"region{number}", "size": 1, "align": 16 * MIB, "namespaces": []} for number in (0, 1, 2)]
    for each in said:
        regions[int(str(each["dev"])[len("namespace")])]["namespaces"].append(each)
    del regions[2]["namespaces"]
    dimms = [{"dev": "nmem0", "id": "8680-57341200", "handle": 1, "phys_id": 0, "state": "disabled"}]
    buses = [{"provider": "ACPI.NFIT", "dev": f"ndbus{number}", "scrub_state": "idle"} for number in (0, 1)]
    random.shuffle(said)
    return {
        "-N": said,
        "-D -N": {"dimms": dimms, "namespaces": said},
        "-N -D": {"namespaces": said, "dimms": dimms},
        "-R -N": regions,
        "-D -R -N": {"dimms": dimms, "regions": regions},
        "-B -N": [buses[0] | {"namespaces": said}, buses[1]],
        "-B -R -N": [buses[0] | {"regions": regions[:1]}, buses[1] | {"regions": regions[1:]}],
        "-B -D -R -N": [buses[0] | {"dimms": dimms, "regions": regions}, buses[1] | {"dimms": dimms}],
        "an object": {"buses": [buses[0] | {"regions": regions}]},
    }


@pytest.mark.parametrize("shape", shapes([]))
def test_every_shape_gives_the_same(shape: str) -> None:
    slots = [hosts.Slot(kind, region=number % 2) for number, kind in enumerate(["devdax", "devdax", *hosts.UNUSABLE])]
    said = [slot.json() for slot in slots]
    expected = ndctl.parse(json.dumps(said))
    assert len(expected) == len(slots)
    assert ndctl.parse(json.dumps(shapes(said)[shape])) == expected


def test_one_object_in_place_of_an_array() -> None:
    slot = hosts.Slot()
    assert ndctl.parse(json.dumps(slot.json())) == ndctl.parse(json.dumps([slot.json()]))


OTHERS = [[{"dev": "nmem0"}], {"dimms": [{"dev": "nmem0"}]}, [{"dev": "region0"}], [{"dev": "ndbus0"}]]


@pytest.mark.parametrize("listing", OTHERS)
def test_listings_without_namespaces(listing: object) -> None:
    assert ndctl.parse(json.dumps(listing)) == ()


def test_unknown_keys_are_let_be() -> None:
    said = hosts.Slot().json()
    more = {"unusable": 1, "pmem": "no", "device": [], "badblocks": [{"offset": 1, "length": 8}], "badblock_count": 8}
    assert one(more | said) == one(said)
    assert one(said).unusable is None  # known bad blocks do not make it unusable


# Values


def test_empty_slots_are_left_out() -> None:
    slot = hosts.Slot()
    listing = [hosts.Slot("seed").json(), slot.json(), hosts.Slot("seed").json()]
    assert [each.name for each in ndctl.parse(json.dumps(listing))] == [slot.name]


def test_uuid_is_lower_case() -> None:
    slot = hosts.Slot()
    assert one(slot.json() | {"uuid": slot.uuid.upper()}).uuid == slot.uuid


@pytest.mark.parametrize("text", [None, "", str(uuid.UUID(int=0)), "854abf5c"])
def test_without_a_uuid_it_is_unusable(text: str | None) -> None:
    namespace = one(hosts.Slot().json() | {"uuid": text})
    assert (namespace.uuid, namespace.unusable) == (None, "it has no uuid")


def test_a_device_without_a_name_was_usable() -> None:
    said = hosts.Slot().json()
    said["daxregion"]["devices"][0]["chardev"] = ""
    assert (one(said).device, one(said).unusable) == (None, "it has no device")


def test_without_a_size_it_is_unusable() -> None:
    said = hosts.Slot(kind="raw").json() | {"mode": "devdax", "chardev": "dax0.0", "size": 0}
    assert one(said).unusable == "its size is 0"


def test_size_is_the_devices() -> None:
    slot = hosts.Slot()
    assert one(slot.json() | {"size": slot.size + 2 * MIB}).size == slot.size


def test_align_as_in_nova_bug_keyerror_without_align() -> None:
    """Nova takes daxregion.align and fails with KeyError when that is not there."""
    aligns = [random.choice([4096, 2 * MIB, 1024 * MIB]) for _ in range(3)]
    said = hosts.Slot().json()
    region = said["daxregion"]
    device = region["devices"][0] | {"align": aligns[0]}
    assert one(said | {"daxregion": region | {"align": aligns[1], "devices": [device]}}).align == aligns[0]
    del device["align"]
    said |= {"align": aligns[2]}
    assert one(said | {"daxregion": region | {"align": aligns[1], "devices": [device]}}).align == aligns[1]
    del region["align"]
    assert one(said | {"daxregion": region | {"devices": [device]}}).align == aligns[2]
    del said["align"]
    assert one(said | {"daxregion": region | {"devices": [device]}}).align == 2 * MIB


def test_as_in_nova_bug_keyerror_without_devices() -> None:
    """Nova takes daxregion.devices of every namespace."""
    said = hosts.Slot().json()
    del said["daxregion"]["devices"]
    assert one(said).unusable == "it has no device"
    del said["daxregion"]
    assert one(said).unusable == "it has no device"


def test_empty_slots_of_a_dax_region_are_no_devices() -> None:
    said = hosts.Slot().json()
    devices = said["daxregion"]["devices"]
    devices.insert(0, {"chardev": "dax0.77", "size": 0, "mode": "devdax"})
    assert one(said).unusable is None
    assert one(said).device == f"/dev/{devices[1]['chardev']}"


def test_a_device_with_an_empty_name_is_none() -> None:
    said = hosts.Slot().json()
    said["daxregion"]["devices"][0]["chardev"] = ""
    assert (one(said).device, one(said).unusable) == (None, "it has no device")


def test_mode_is_system_ram_where_the_device_is() -> None:
    assert one(hosts.Slot("system-ram").json()).mode == "system-ram"


@pytest.mark.parametrize("kind", hosts.UNUSABLE)
def test_unusable_ones_have_no_device_that_could_be_handed_out(kind: str) -> None:
    namespace = one(hosts.Slot(kind).json())
    assert namespace.unusable is not None
    assert (namespace.device is not None) == (kind in {"unnamed", "device-disabled", "system-ram"})


def test_two_of_one_name_are_both_usable() -> None:
    first = hosts.Slot()
    found = ndctl.parse(json.dumps([first.json(), hosts.Slot(name=first.name).json()]))
    assert [(each.name, each.unusable) for each in found] == [(first.name, None)] * 2


@pytest.mark.parametrize(("key", "value"), [("size", 1 << 62), ("size", -(1 << 62)), ("align", 3), ("align", 1 << 63)])
@pytest.mark.parametrize("in_device", [False, True])
def test_numbers_that_cannot_be_make_it_unusable(key: str, value: int, in_device: bool) -> None:
    said = hosts.Slot().json()
    device = said["daxregion"]["devices"][0]
    if not in_device:
        del device[key], said["daxregion"][key]
    (device if in_device else said)[key] = value
    assert one(said).unusable is not None


# NUMA node: the namespace's, its region's, that of sysfs, the target node


def test_numa_node_by_preference() -> None:
    told, region, sysfs, target, device = random.sample(range(100), 5)
    said = hosts.Slot().json()
    said["target_node"] = target
    said["daxregion"]["devices"][0]["target_node"] = device
    asked = []

    def node_of(dev: str) -> int | None:
        asked.append(dev)
        return sysfs

    assert one(said | {"numa_node": told}, node_of=node_of).numa_node == told
    del said["numa_node"]
    inside = json.dumps([{"dev": "region0", "numa_node": region, "namespaces": [said]}])
    assert ndctl.parse(inside, node_of)[0].numa_node == region
    assert not asked
    assert one(said, node_of=node_of).numa_node == sysfs
    assert asked == [said["dev"]]
    assert one(said, node_of=lambda _: None).numa_node == max(target, device)
    del said["target_node"]
    assert one(said).numa_node == device
    del said["daxregion"]["devices"][0]["target_node"]
    assert one(said).numa_node is None
    assert one(said | {"numa_node": -1}).numa_node is None
    assert one(said | {"numa_node": 1 << 31}).numa_node is None


def test_one_regions_node_is_not_anothers() -> None:
    slots = [hosts.Slot(region=region) for region in (0, 1)]
    said = [slot.json() for slot in slots]
    for each in said:
        del each["numa_node"], each["target_node"], each["daxregion"]
    listing = [{"dev": "region0", "numa_node": 1, "namespaces": said[:1]}, {"dev": "region1", "namespaces": said[1:]}]
    found = {each.name: each.numa_node for each in ndctl.parse(json.dumps(listing))}
    assert found == {slots[0].name: 1, slots[1].name: None}


# What cannot be read


@pytest.mark.parametrize(
    "text",
    [
        "no matching devices found",
        "{",
        "null",
        "3",
        '"namespace0.0"',
        "[1]",
        "[null]",
        "[[]]",
        "{}",
        "[{}]",
        '[{"chardev":"dax0.0","size":4096}]',  # daxctl list
        '[{"dev":"namespace0.0","size":null}]',
        '[{"dev":"namespace0.0","size":1.5}]',
        '[{"dev":"namespace0.0","daxregion":{"devices":[{}]}}]',
        '[{"dev":"namespace0.0"}] [',
        '[{"dev":"\udcff"}]',
        "[" * 100_000,
        '[{"unknown":' * 100_000,
        '[{"dev":"region0","namespaces":' * 100_000,
    ],
    ids=lambda text: text[:30],
)
def test_what_is_no_listing(text: str) -> None:
    with pytest.raises(exception.DiscoveryFailed) as failed:
        ndctl.parse(text)
    assert "(discovery = ndctl)" in str(failed.value)
    assert "discovery = sysfs" in str(failed.value)


def test_half_a_listing() -> None:
    text = json.dumps([hosts.Slot().json(), hosts.Slot("fsdax").json()], indent=2)
    for end in range(1, len(text)):
        with pytest.raises(exception.DiscoveryFailed, match="incomplete"):
            ndctl.parse(text[:end])


@pytest.mark.parametrize("size", ["128.00 MiB (134.22 MB)", "1.00 GiB (1.07 GB)"])
def test_sizes_for_people(size: str) -> None:
    said = hosts.Slot().json()
    for human in (said | {"size": size}, said | {"daxregion": {"size": size, "align": "2.00 MiB (2.10 MB)"}}):
        for text in (json.dumps(human), json.dumps([human], indent=2)):
            with pytest.raises(exception.DiscoveryFailed, match="--human"):
                ndctl.parse(text)


def test_message_holds_none_of_the_output() -> None:
    secret = f"x{uuid.uuid4().hex}"
    for text in (f'[{{"dev":"namespace0.0","name":"{secret}"', f'[{{"dev":"namespace0.0","size":"{secret}"}}]', secret):
        with pytest.raises(exception.DiscoveryFailed) as failed:
            ndctl.parse(text)
        assert secret not in str(failed.value)


def parse_or_fail(text: str) -> None:
    try:
        found = ndctl.parse(text)
    except exception.DiscoveryFailed:
        return
    for each in found:
        assert each.unusable is not None or (each.uuid and each.name and each.device and each.size > 0)
        assert 0 <= each.size < 1 << 52
        assert 0 < each.align <= 1 << 30
        assert each.numa_node is None or 0 <= each.numa_node < 1024


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)
KEYS = [
    "dev",
    "mode",
    "size",
    "uuid",
    "daxregion",
    "devices",
    "chardev",
    "align",
    "name",
    "numa_node",
    "state",
    "namespaces",
]
NEARLY = st.recursive(
    JSON | st.sampled_from(["namespace0.0", "region0", "devdax", "disabled", "system-ram"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*KEYS, "regions", "buses"]), inner),
)


@hypothesis.given(st.text())
def test_any_text(text: str) -> None:
    parse_or_fail(text)


@hypothesis.given(JSON | NEARLY)
def test_any_json(value: object) -> None:
    parse_or_fail(json.dumps(value))


@hypothesis.given(st.dictionaries(st.sampled_from(KEYS), NEARLY | st.integers(-(1 << 70), 1 << 70)), st.booleans())
def test_any_value_in_a_namespace(values: dict[str, object], in_device: bool) -> None:
    said = hosts.Slot().json()
    inner = said["daxregion"]["devices"][0] if in_device else said
    inner.update(values)
    parse_or_fail(json.dumps([said]))
