"""The durable record of namespaces, owners and states."""

from vpmem_driver.ledger.ledger import FILE_NAME, Ledger, Move, Row
from vpmem_driver.ledger.reader import LedgerReader

__all__ = ["FILE_NAME", "Ledger", "LedgerReader", "Move", "Row"]
