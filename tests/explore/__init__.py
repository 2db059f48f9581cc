"""Systematic exploration of interleavings and crashes over the real pool, ledger and engine."""
