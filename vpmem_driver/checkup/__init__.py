"""Checks of a host: small functions that look at one thing, change nothing, and return findings.

``vpmem status`` uses the findings about namespaces, ``vpmem host check`` and ``vpmem-status upgrade check`` all.
"""

from vpmem_driver.checkup.finding import Finding, Level

__all__ = ["Finding", "Level"]
