"""The command ``vpmem provision``."""

import argparse
import shlex

from vpmem_driver.cli import common
from vpmem_driver.planning import inventory, provision
from vpmem_driver.planning import plan as plans


class Provision(common.Command):
    """Cut the namespaces of a plan that 'vpmem plan --output' has written.

    Without --yes, only show the commands. Each step is shown before it is done, and the host is looked at before and
    after it. The first difference from the plan ends it. A region in which a namespace is in use, or is not in the
    plan, is not touched. What is done already is skipped: run it again to do the rest.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.epilog = "example: vpmem provision plan.json --yes"
        parser.add_argument("plan", metavar="PLAN", help="file that 'vpmem plan --output' has written")
        parser.add_argument("--yes", action="store_true", help="do it")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        plan = plans.read(parsed_args.plan)
        conf = common.app(self).configuration()
        host = inventory.of_this_host()
        tasks = provision.remaining(plan, host)
        provision.check_unused(tasks, conf)
        if not parsed_args.yes:
            for task in tasks:
                self._show(plan, task)
            if tasks:
                self._say(f"Nothing was changed. With --yes, {len(tasks)} namespaces are cut.")
        else:
            for task in provision.carry_out(plan, tasks, inventory.of_this_host):
                self._show(plan, task)
        if not tasks or parsed_args.yes:
            self._say("All namespaces of the plan exist. For nova.conf or vpmem.conf:")
            self._say(f"[libvirt]\npmem_namespaces = {plan.pmem_namespaces}")

    def _show(self, plan: plans.Plan, task: provision.Task) -> None:
        number = plan.steps.index(task.step) + 1
        self._say(f"step {number} of {len(plan.steps)}: {shlex.join(task.command)}")

    def _say(self, text: str) -> None:
        self.app.stdout.write(f"{text}\n")
        self.app.stdout.flush()
