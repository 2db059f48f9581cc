"""The engine: starts and supervises the worker processes that access the devices."""

from vpmem_driver.engine.engine import Engine
from vpmem_driver.engine.job import CopyJob, Job, ReceiveJob, Recorder, Result, SendJob
from vpmem_driver.protocol import Outcome

__all__ = ["CopyJob", "Engine", "Job", "Outcome", "ReceiveJob", "Recorder", "Result", "SendJob"]
