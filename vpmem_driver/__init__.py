"""Persistent memory for virtual machines: really persistent, really private, always accounted for."""

__version__ = "0.1.0"
