"""Persistent memory for virtual machines: really persistent, really private, always accounted for."""
