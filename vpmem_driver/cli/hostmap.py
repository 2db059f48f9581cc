"""A map of a host: NUMA nodes, and their namespaces to scale. It is ASCII, and legible without colours."""

import dataclasses
from collections.abc import Iterator, Sequence

from rich import console, text

from vpmem_driver import model, sizes
from vpmem_driver.checkup.host import Host
from vpmem_driver.cli import listing, owners
from vpmem_driver.pool import snapshot

#: What fills the bar of a namespace in each state.
_FILLS = {
    "clean": ".",
    "claimed": "#",
    "receiving": ">",
    "dirty": "~",
    "unknown": "?",
    "quarantined": "!",
    "missing": "x",
}
_UNUSABLE = "-"
_UNUSED = " "
#: Characters of the bar of a wipe or a copy.
_BAR_WIDTH = 20
_ND = "/sys/bus/nd/devices"


@dataclasses.dataclass(frozen=True, slots=True)
class Memory:
    """The persistent memory of one NUMA node, in bytes.

    :ivar total: of all regions; None if the kernel does not tell, as with files
    :ivar unused: in no namespace
    """

    total: int | None
    unused: int


def memory_of(host: Host) -> dict[int | None, Memory]:
    """Return the memory of each node, from the regions of the NVDIMM bus."""
    found: dict[int | None, Memory] = {}
    for name in host.names(_ND):
        size, available = (_number(host, f"{_ND}/{name}/{attribute}") for attribute in ("size", "available_size"))
        if not name.startswith("region") or size is None:
            continue
        number = _number(host, f"{_ND}/{name}/numa_node")
        node = None if number is None or number < 0 else number
        before = found.get(node, Memory(0, 0))
        found[node] = Memory((before.total or 0) + size, before.unused + (available or 0))
    return found


def _number(host: Host, path: str) -> int | None:
    try:
        return int(host.read(path) or "", 0)
    except ValueError:
        return None


class HostMap:
    """Renders a snapshot with rich."""

    def __init__(self, now: snapshot.Snapshot, memory: dict[int | None, Memory], names: owners.Owners) -> None:
        self._now = now
        self._memory = memory
        self._names = names

    def __rich_console__(self, target: console.Console, options: console.ConsoleOptions) -> Iterator[text.Text]:
        records = [record for record in self._now.records if record.size]
        nodes = sorted(
            {record.numa_node for record in records} | set(self._memory), key=lambda node: (node is None, node)
        )
        for node in nodes:
            members = [record for record in records if record.numa_node == node]
            yield from self._node(node, members, options.max_width)
        yield self._legend(records)
        for error in self._now.errors:
            yield text.Text(str(error), style="red")

    def _node(self, node: int | None, members: Sequence[model.Record], width: int) -> Iterator[text.Text]:
        memory = self._memory.get(node, Memory(None, 0))
        held = sum(record.size for record in members)
        title = "node unknown" if node is None else f"node {node}"
        total = memory.total if memory.total is not None else held
        count = f"{len(members)} namespace{'' if len(members) == 1 else 's'}"
        yield text.Text(f"{title}: {sizes.in_words(total)}, {count}", style="bold", no_wrap=True)
        yield self._bar(members, max(total, held + memory.unused), memory.unused, width)
        name_width = max([len(record.name or record.uuid or "") for record in members], default=0)
        for record in members:
            yield self._line(record, min(name_width, width // 3))
        for line in self._costs(members, memory):
            yield text.Text(f"  {line}")
        yield text.Text("")

    def _bar(self, members: Sequence[model.Record], total: int, unused: int, width: int) -> text.Text:
        """Return the bar of a node. Each namespace has at least the width of its border."""
        bar = text.Text("|", no_wrap=True, overflow="crop")
        room = width - 1
        parts: list[tuple[str, int, str, str | None]] = [
            (record.name or "", record.size, _FILLS.get(record.state, _UNUSABLE), listing.COLOURS.get(record.state))
            for record in members
        ]
        if unused:
            parts.append(("", unused, _UNUSED, None))
        start, seen = 0, 0
        for name, size, fill, colour in parts:
            seen += size
            end = room * seen // total if total else 0
            cells = max(0, end - start - 1)
            shown = f" {name} " if name and len(name) + 2 <= cells else ""
            bar.append(shown.center(cells, fill) if shown else fill * cells, style=colour or "")
            if end > start:
                bar.append("|")
            start = max(start, end)
        return bar

    def _line(self, record: model.Record, name_width: int) -> text.Text:
        progress = self._now.progress(record.uuid)
        state = record.state
        if progress is not None:
            done = _BAR_WIDTH * progress.percent // 100
            bar = f"[{'=' * done}{' ' * (_BAR_WIDTH - done)}]"
            state = f"{record.state} {bar} {progress.percent}% {progress.verb}"
        line = text.Text("  ", no_wrap=True, overflow="ellipsis")
        line.append(f"{(record.name or record.uuid or '')[:name_width]:<{name_width}}  {sizes.text(record.size):>12}  ")
        line.append(state, style=listing.COLOURS.get(record.state, ""))
        for word in (record.label, self._names.short(record.owner)):
            if word:
                line.append(f"  {word}")
        return line

    def _costs(self, members: Sequence[model.Record], memory: Memory) -> Iterator[str]:
        """Say what guests get, and what takes the rest."""
        usable = [record for record in members if record.state not in {"missing", "unusable"}]
        seen = sum(record.guest_size or 0 for record in usable)
        held = sum(record.size for record in usable)
        yield f"guests get {sizes.in_words(seen)}; labels and alignment take {sizes.in_words(held - seen)}"
        if memory.total is not None:
            present = sum(record.size for record in members if record.state != "missing")
            blocks = sizes.in_words(max(0, memory.total - memory.unused - present))
            yield f"info blocks and page descriptors take {blocks}; {sizes.in_words(memory.unused)} unused"

    def _legend(self, records: Sequence[model.Record]) -> text.Text:
        legend = text.Text()
        for state, fill in _FILLS.items():
            if any(record.state == state for record in records):
                legend.append(f"{fill * 3} {state}  ", style=listing.COLOURS.get(state, ""))
        return legend
