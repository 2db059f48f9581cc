"""``./dev fuzz``: made-up input for everything that reads input. Only typed errors, in bounded time and memory.

A target (:mod:`.targets`) makes a few well-formed inputs itself; atheris mutates them, guided by the coverage of the
package. Each target runs in a process of its own (:mod:`.worker`); :mod:`.__main__` starts them and reports.
"""
