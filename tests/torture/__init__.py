"""``./dev torture``: processes are killed and stopped at every durable step, and an independent checker decides.

A round has a host of its own: a few files as namespaces, one ledger, a few owners. Its seed decides who does what, in
which order the processes take their steps, who is killed or stopped where. :mod:`.controller` runs one process at a
time, from one point to the next, so a seed repeats a round, but for what hangs on the namespaces' uuids. A *point* is
an act that other processes could notice, announced before and after it by :mod:`.hooks`, which wrap Python's own
modules. In every second round a *trap* (:mod:`.fate`) holds a process where what it knows is about to change.
After every step :mod:`.checker` compares the ledger, the bytes of the files and what each process was told; it uses no
code of the package.
"""
