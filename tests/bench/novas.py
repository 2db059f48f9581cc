"""Nova's own code as the peer. Imported only where that is measured."""

import collections
import copy
import typing
import uuid
from unittest import mock

from bench import hosts
from nova import objects
from nova.compute import provider_tree, resource_tracker
from nova.virt.libvirt import driver as libvirt_driver

objects.register_all()

CLASSES = tuple(f"CUSTOM_PMEM_NAMESPACE_{label}" for label in hosts.LABELS)
GIB = 1 << 30

Allocations = dict[str, dict[str, dict[str, int]]]


def resource(provider_uuid: str, number: int) -> objects.Resource:
    """One namespace as Nova's driver records it."""
    label = number % len(CLASSES)
    device = objects.LibvirtVPMEMDevice(
        label=hosts.LABELS[label], name=f"ns{number}", devpath=f"/dev/dax0.{number}", size=4 * GIB, align=2 << 20
    )
    return objects.Resource(
        provider_uuid=provider_uuid, resource_class=CLASSES[label], identifier=device.name, metadata=device
    )


def _by_class(made: list[objects.Resource]) -> dict[str, set]:
    resources: dict[str, set] = {name: set() for name in CLASSES}
    for one in made:
        resources[one.resource_class].add(one)
    return resources


def _tree(node: str, resources: dict[str, set]) -> provider_tree.ProviderTree:
    """A tree of one provider. It copies what it is given."""
    tree = provider_tree.ProviderTree()
    tree.new_root("host", node)
    tree.update_resources(node, resources)
    return tree


def trees(node: str, made: list[objects.Resource]) -> list[provider_tree.ProviderTree]:
    """The tracker's tree, and the driver's copy of it."""
    tree = _tree(node, _by_class(made))
    return [tree, copy.deepcopy(tree)]


def tracker(count: int) -> tuple[resource_tracker.ResourceTracker, Allocations]:
    """A resource tracker of a host with `count` namespaces, half of each class assigned, and a request for two."""
    node = str(uuid.uuid4())
    made = [resource(node, number) for number in range(count)]
    return tracker_of(node, _by_class(made), made[: count // 2])


def tracker_of(
    node: str, resources: dict[str, typing.Any], assigned: list[objects.Resource]
) -> tuple[resource_tracker.ResourceTracker, Allocations]:
    """A resource tracker of a host with these sets, and a request for one of each class."""
    found = resource_tracker.ResourceTracker.__new__(resource_tracker.ResourceTracker)
    found.assigned_resources = collections.defaultdict(lambda: collections.defaultdict(set))
    found.provider_tree = _tree(node, resources)
    found._add_assigned_resources([one.obj_clone() for one in assigned])
    return found, {node: {"resources": dict.fromkeys(CLASSES, 1)}}


def claim_and_release(tracker: resource_tracker.ResourceTracker, allocations: Allocations) -> None:
    """As instance_claim() and the deletion of an instance do it."""
    claimed = tracker._claim_resources(allocations)
    tracker._release_assigned_resources(claimed)


def discovery(text: str) -> typing.Callable[[list[str]], object]:
    """``_discover_vpmems`` of a driver on a host of which ndctl says `text`."""
    mock.patch("nova.privsep.libvirt.get_pmem_namespaces", return_value=text).start()
    driver = libvirt_driver.LibvirtDriver.__new__(libvirt_driver.LibvirtDriver)
    return driver._discover_vpmems
