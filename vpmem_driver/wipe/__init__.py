"""Wiping: the engine, and the child process that it starts for each namespace."""

from vpmem_driver.wipe.engine import Engine
from vpmem_driver.wipe.job import Job, Outcome, Watcher

__all__ = ["Engine", "Job", "Outcome", "Watcher"]
