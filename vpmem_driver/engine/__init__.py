"""The engine: starts and supervises the worker processes that touch bytes."""

from vpmem_driver.engine.engine import Engine
from vpmem_driver.engine.job import Job, Recorder, Result
from vpmem_driver.protocol import Outcome

__all__ = ["Engine", "Job", "Outcome", "Recorder", "Result"]
