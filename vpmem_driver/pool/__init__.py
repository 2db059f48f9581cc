"""The pool: one host's namespaces together with their ledger, and the only package that uses the compiled table."""

from vpmem_driver.ledger import Move, Row
from vpmem_driver.pool.pool import Pool

__all__ = ["Move", "Pool", "Row"]
