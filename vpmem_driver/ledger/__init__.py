"""The durable record of namespaces, owners and states."""

from vpmem_driver.ledger.ledger import FILE_NAME, Ledger
from vpmem_driver.ledger.rows import Move, Row

__all__ = ["FILE_NAME", "Ledger", "Move", "Row"]
