"""The pool: one host's namespaces together with their ledger, and the only package that uses the compiled table."""

from vpmem_driver.ledger import Move, Row
from vpmem_driver.pool.pool import Pool
from vpmem_driver.pool.progress import Progress, progress_of

__all__ = ["Move", "Pool", "Progress", "Row", "progress_of"]
