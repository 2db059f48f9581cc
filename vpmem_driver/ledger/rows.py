"""The values that the ledger returns: a row per namespace, and a line of the history per move."""

import dataclasses

import msgspec

from vpmem_driver import model


class Row(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One namespace in the ledger. Sizes are bytes.

    :ivar owner: the owner that holds it (claimed), has reserved it (dirty or clean), or gets it (receiving)
    :ivar position: index among the owner's devices
    :ivar label: label of the last claim
    :ivar last_owner: last owner that held it claimed, whose data it may contain
    :ivar begun: whether a wipe or copy has overwritten any of it since it became dirty or receiving, or it lost its
        content in a restart of the host
    :ivar wiped: number of bytes from the start that this wipe has durably zeroed
    :ivar verified: number of bytes from the start that this wipe has read back as zeros
    :ivar run: fencing token of the wipe or copy that may write and report now. A new one invalidates it, and so does
        any move to or from the states dirty and receiving
    :ivar reservation: id of the claim that has reserved this namespace; all namespaces of a claim are claimed together
    :ivar reason: why it is quarantined, or not wiped yet
    :ivar changed: id of the history line of its last move
    :ivar copied: number of bytes from the start that a copy has durably written here (receiving) or at the destination
        (claimed, with a departure)
    :ivar arrival: id of the copy that fills it, or has filled it since it was claimed
    :ivar departure: id of the copy that takes its content to another namespace. Its guest must not start meanwhile
    :ivar boot: id of the boot of the host in which `state` is true; None if the namespace is not volatile
    :ivar device_model: model of the owner's device; None without an owner
    :ivar label_size: bytes for labels in the owner's device; None without an owner
    """

    uuid: str
    name: str | None
    size: int
    align: int
    numa_node: int | None
    mode: str
    device: str | None
    pmem: bool
    state: model.State
    owner: str | None
    position: int | None
    label: str | None
    last_owner: str | None
    begun: bool
    wiped: int
    verified: int
    run: str | None
    reservation: str | None
    reason: str | None
    changed: int
    copied: int
    arrival: str | None
    departure: str | None
    boot: str | None
    device_model: model.DeviceModel | None
    label_size: int | None

    @property
    def hardware(self) -> model.Hardware | None:
        """The hardware of the owner's device; None without an owner."""
        if self.device_model is None or self.label_size is None:
            return None
        return model.Hardware(self.device_model, self.label_size)


@dataclasses.dataclass(frozen=True, slots=True)
class Move:
    """One line of the history: a change of state, with time (``at``: UTC, ISO 8601), owner and reason."""

    id: int
    at: str
    uuid: str
    name: str | None
    from_state: str | None
    to_state: str
    owner: str | None
    reason: str
