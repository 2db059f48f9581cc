"""Plan which namespaces to cut for flavors, and cut them.

``inventory`` reads the regions of a host, ``wishes`` what the operator wants, ``cutting`` has the sizes, ``solve``
finds the best numbers, ``plan`` makes the plan of it, and ``provision`` carries it out.
"""
