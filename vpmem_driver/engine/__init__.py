"""The engine: starts and supervises the worker processes that access the devices."""

from vpmem_driver.engine.engine import Engine
from vpmem_driver.engine.job import Job, Recorder, Result
from vpmem_driver.protocol import Outcome

__all__ = ["Engine", "Job", "Outcome", "Recorder", "Result"]
