"""``./dev concurrency``: many threads and processes use one ledger at the same time, and a checker follows them.

Processes of three kinds work on one host (:mod:`.host`): threads that share a pool (:mod:`.pool_user`), processes that
run ``vpmem`` again and again (:mod:`.command_user`), and running drivers, one with native threads and one under
eventlet (:mod:`.driver_user`). Each writes what it was told to a file of its own (:mod:`.account`). :mod:`.checker`
compares that with the ledger and the bytes; it uses no code of the package. :mod:`.run` starts and ends all of it.
"""
