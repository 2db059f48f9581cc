"""The command ``vpmem plan``."""

import argparse
import functools
import os
import pathlib
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from vpmem_driver import exception, sizes
from vpmem_driver.cli import common, findings, tables
from vpmem_driver.planning import cutting, inventory, picture, wishes
from vpmem_driver.planning import plan as plans
from vpmem_driver.pool import hardware, labels, snapshot

_FLAVORS = (
    tables.Column("FLAVOR"),
    tables.Column("PMEM", takes_rest=True),
    tables.Column("WANTED", is_number=True),
    tables.Column("GUESTS", is_number=True),
)
_LABELS = (
    tables.Column("LABEL"),
    tables.Column("GUEST GETS", is_number=True),
    tables.Column("KEPT", is_number=True),
    tables.Column("NEW", is_number=True),
)
_REGIONS = (
    tables.Column("REGION", is_cut_last=True),
    tables.Column("NODE", is_number=True),
    tables.Column("SIZE", is_number=True),
    tables.Column("KEPT", is_number=True),
    tables.Column("GUESTS", is_number=True),
    tables.Column("INFO BLOCKS", is_number=True),
    tables.Column("LABELS", is_number=True),
    tables.Column("UNUSED", is_number=True),
)
_GROUPS = (
    tables.Column("HOSTS", is_number=True),
    tables.Column("FIRST HOST"),
    tables.Column("NEW", is_number=True),
    tables.Column("GUESTS OF EACH HOST", takes_rest=True),
    tables.Column("UNUSED", is_number=True),
)
#: Namespaces in these states are not given to a guest.
_NOT_USABLE = frozenset({"missing", "unusable", "quarantined"})


class Plan(common.Command):
    """Plan which namespaces to cut for flavors, and change nothing.

    The file has labels with sizes, and flavors with the number of guests that is wanted, or with weights. The plan has
    the commands of ndctl, the line for pmem_namespaces, how many guests of each flavor fit, and what is lost. Existing
    namespaces are kept. Without --inventory, plan for this host; guests also get its namespaces that have a label.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.epilog = "example: vpmem plan flavors.toml --output plan.json"
        parser.add_argument("flavors", metavar="FLAVORS", help="TOML file of labels and flavors")
        parser.add_argument(
            "--inventory",
            metavar="PATH",
            help=f"output of '{inventory.COMMAND}' of another host, or a directory with a file NAME.json for each host",
        )
        parser.add_argument(
            "--map",
            choices=[where.value for where in cutting.Map],
            default=cutting.Map.DEV.value,
            help="page descriptors in the namespace, or in the memory of the host (default: %(default)s)",
        )
        parser.add_argument(
            "--align", choices=("4K", "2M", "1G"), default="2M", help="alignment of mappings (default: %(default)s)"
        )
        parser.add_argument(
            "--output", metavar="PLAN", help="file for 'vpmem provision'; a directory, if --inventory is one"
        )
        parser.add_argument("--svg", metavar="FILE", help="draw what fits and what is lost")
        findings.add_format_argument(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        wanted = wishes.read(parsed_args.flavors)
        wanted = wanted.with_label_sizes(self._label_sizes([label.name for label in wanted.labels]))
        planner = plans.Planner(wanted, sizes.parse(parsed_args.align), cutting.Map(parsed_args.map))
        if parsed_args.inventory is None:
            made: Iterable[plans.Plan] = [planner.plan(inventory.of_this_host(), self._labelled())]
        else:
            files = self._counted(inventory.files(parsed_args.inventory), is_json=parsed_args.format == "json")
            made = map(planner.plan, inventory.of_files(files))
        if parsed_args.output is not None:
            made = _saved(made, parsed_args.output, is_many=os.path.isdir(parsed_args.inventory or ""))
        if parsed_args.format == "json":
            made = self._print_json(made)
        groups = _grouped(made)
        if parsed_args.svg is not None:
            _write(pathlib.Path(parsed_args.svg), lambda path: path.write_text(picture.draw(groups), encoding="utf-8"))
        if parsed_args.format == "text":
            screen = tables.Screen.of(self.app.stdout)
            (count, plan), *others = groups
            self.app.stdout.write(_many(groups, screen) if others or count > 1 else _one(plan, screen))

    def _label_sizes(self, wanted: Sequence[str]) -> list[int]:
        conf = common.app(self).configuration()
        configured = labels.parse(conf.libvirt.pmem_namespaces).labels
        return hardware.label_sizes(conf.vpmem.label_size, configured, wanted)

    def _labelled(self) -> plans.Labelled:
        """Return what the configuration gives to guests already."""
        conf = common.app(self).configuration()
        now = snapshot.read(conf)
        if now.found is None:
            raise now.errors[0]
        config = labels.parse(conf.libvirt.pmem_namespaces)
        names: dict[str, list[str]] = {label: [] for label in config.labels}
        for entry in config.entries:
            names[config.labels[entry.label]].append(entry.namespace)
        usable = [
            (
                record.label,
                record.guest_size or 0,
                record.numa_node,
            )
            for record in now.records
            if record.label is not None and record.state not in _NOT_USABLE
        ]
        return plans.Labelled(names, usable)

    def _counted(self, files: Sequence[pathlib.Path], *, is_json: bool) -> Iterable[pathlib.Path]:
        """Return the files, and show on a terminal how many of them were taken, unless plans are printed meanwhile."""
        stream = typing.cast("typing.TextIO", self.app.stderr)
        if len(files) == 1 or not stream.isatty() or (is_json and self.app.stdout.isatty()):
            return files
        from rich import console, progress  # noqa: PLC0415  slow to import, and rarely needed

        return progress.track(files, "Planning", console=console.Console(file=stream), transient=True)

    def _print_json(self, made: Iterable[plans.Plan]) -> Iterator[plans.Plan]:
        """Print each plan as soon as it is made."""
        before = "[\n"
        for plan in made:
            self.app.stdout.write(before + msgspec.json.format(msgspec.json.encode(plan)).decode())
            before = ",\n"
            yield plan
        self.app.stdout.write("\n]\n")


def _saved(made: Iterable[plans.Plan], path: str, *, is_many: bool) -> Iterator[plans.Plan]:
    for plan in made:
        _write(pathlib.Path(path, f"{plan.host}.json" if is_many else ""), functools.partial(plans.write, plan))
        yield plan


def _write(path: pathlib.Path, write: Callable[[pathlib.Path], object]) -> None:
    """:raises HostToolError: the file cannot be written."""
    try:
        if not path.name:
            raise ValueError("it is not the name of a file")
        write(path)
    except (OSError, ValueError) as error:
        raise exception.HostToolError(
            what=f"Writing {exception.shorten(path)}",
            reason=getattr(error, "strerror", None) or str(error),
            remedy="Give the name of a file in a directory that this user may write to",
        ) from error


def _grouped(made: Iterable[plans.Plan]) -> list[tuple[int, plans.Plan]]:
    """Return how many hosts have the same result, and the plan of the first one of them, the most first."""
    counts: dict[object, int] = {}
    first: dict[object, plans.Plan] = {}
    for plan in made:
        regions = tuple((region.numa_node, region.size, region.kept, region.unused) for region in plan.regions)
        key = (regions, plan.flavors, plan.labels)
        first.setdefault(key, plan)
        counts[key] = counts.get(key, 0) + 1
    return sorted(((count, first[key]) for key, count in counts.items()), key=lambda group: -group[0])


def _one(plan: plans.Plan, screen: tables.Screen) -> str:
    """Return the plan of one host."""
    flavors = [
        (flavor.flavor, flavor.pmem, "" if flavor.wanted is None else str(flavor.wanted), _fit(flavor))
        for flavor in plan.flavors
    ]
    label_rows = [(label.label, sizes.text(label.size), str(label.kept), str(label.new)) for label in plan.labels]
    parts = [
        f"{plan.host}: {len(plan.steps)} new namespaces, --map {plan.map}, --align {plans.short(plan.align)}\n",
        tables.render(_FLAVORS, flavors, screen),
        tables.render(_LABELS, label_rows, screen),
        tables.render(_REGIONS, [_region(region) for region in plan.regions], screen),
    ]
    if plan.steps:
        parts.append("".join(f"{command}\n" for command in plan.commands))
    if plan.pmem_namespaces:
        parts.append(f"[libvirt]\npmem_namespaces = {plan.pmem_namespaces}\n")
    return "\n".join(parts) + _verdict([plan])


def _fit(flavor: plans.FlavorPlan) -> tables.Cell:
    short = flavor.wanted is not None and flavor.guests < flavor.wanted
    return tables.Cell(str(flavor.guests), "red" if short else None)


def _region(region: plans.RegionPlan) -> tables.Row:
    numbers = (region.size, region.kept, region.guests, region.info_blocks, region.labels, region.unused)
    node = "" if region.numa_node is None else str(region.numa_node)
    return (region.dev, node, *(sizes.text(number) for number in numbers))


def _verdict(made: Iterable[plans.Plan]) -> str:
    """Return how good the plans are."""
    all_made = list(made)
    gap = max(plan.gap for plan in all_made)
    wanted = [(flavor.wanted, flavor.guests) for plan in all_made for flavor in plan.flavors]
    if all(want is not None and guests >= want for want, guests in wanted):
        return "\nAll wanted guests fit.\n"
    if not gap:
        return "\nNo plan fits more.\n"
    return f"\nThe solver ended early: another plan may fit up to {100 * gap:.1f}% more.\n"


def _many(groups: list[tuple[int, plans.Plan]], screen: tables.Screen) -> str:
    """Return a line for hosts that are alike, and the sums."""
    rows = []
    for count, plan in groups:
        guests = ", ".join(f"{flavor.flavor} {flavor.guests}" for flavor in plan.flavors)
        unused = sum(region.unused for region in plan.regions)
        rows.append((str(count), plan.host, str(len(plan.steps)), guests, sizes.text(unused)))
    totals = []
    for index, flavor in enumerate(groups[0][1].flavors):
        fit = sum(count * plan.flavors[index].guests for count, plan in groups)
        wanted = None if flavor.wanted is None else flavor.wanted * sum(count for count, _ in groups)
        totals.append((flavor.flavor, flavor.pmem, "" if wanted is None else str(wanted), str(fit)))
    table = tables.render(_GROUPS, rows, screen)
    return f"{table}\n{tables.render(_FLAVORS, totals, screen)}{_verdict(plan for _, plan in groups)}"
