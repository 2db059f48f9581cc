"""The table of one host's namespaces in C arrays: which label each carries, whether it is free, which to choose next.

Values in, indices out. What an index, a label or a node number stands for is the caller's business, as are owners, the
ledger and the lock: nothing here releases the GIL, and a table is to be used by one thread at a time.

Inside, a namespace is known by its position: positions are sorted by label, node, size, name and index, so that those
of one label on one node, a group, lie side by side, the preferred first. For each state that is free a bitmap over the
positions finds the next one in as many steps as it has levels, 4 for a million namespaces; counts are kept by group.
So the cost of a request depends on its length and on the number of nodes, not on the number of namespaces. What is
marked "for one request" means nothing between requests.

There are no list comprehensions: in Cython 3.3.1 they release an item twice when memory runs out.
"""

import collections
import operator

from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_New, PyTuple_SetItem
from libc.limits cimport INT_MAX
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint64_t

cimport cython

cpdef enum:
    CLEAN = 0        # these three are free, and are preferred in this order
    DIRTY = 1
    UNKNOWN = 2
    CLAIMED = 3      # or reserved: it has an owner
    UNAVAILABLE = 4  # quarantined or missing, and unowned

cpdef enum:
    NOT_FOUND = 1
    AMBIGUOUS = 2
    REPEATED = 3
    TWO_LABELS = 4

include "fastalloc/bitmap.pxi"
include "fastalloc/table.pxi"
include "fastalloc/request.pxi"
include "fastalloc/choosing.pxi"
include "fastalloc/matching.pxi"


@cython.final
@cython.auto_pickle(False)
cdef class NamespaceTable:
    """The namespaces of one host. One thread at a time may use it: callers hold a lock.

    A namespace is free when it is CLEAN, DIRTY or UNKNOWN, and carries a label. What fails changes nothing. A number
    that is no C int raises TypeError or OverflowError.

    For one request :meth:`choose` chooses, of all that is free,

    1. as many as possible on the wanted node;
    2. then on as few nodes in all as possible, the unknown one (-1) being a node like any other;
    3. then the fewest UNKNOWN, then the fewest DIRTY, then the smallest in total, then those of the lowest ranks,
       compared one by one along the request. The rank is the place in the order by size, name and index.

    Those of one label are handed out along the request: first what comes from the wanted node, then the rest; of each,
    CLEAN before DIRTY before UNKNOWN, and by rank.

    Where the wanted node and one more do not do, every set of the nodes that have any of what is missing is looked at,
    as long as there are at most 16 of them, and labels of the request times 2 ** nodes is at most 2 ** 24: 256 labels
    on 16 nodes. Beyond that rule 2 holds nearly: the node that has most of what is still missing is added, the lowest
    of several, until nothing is missing, and what is handed out is chosen from this set by the other rules.

    The parameters are columns, one item per namespace, in the order that gives a namespace its index.

    :param labels: id of its label, -1 for one that carries none and is never chosen
    :param sizes: bytes
    :param nodes: NUMA node of the host, -1 when it is not known
    :param names: its name, for the order of choice only
    :param states: CLEAN, DIRTY, UNKNOWN, CLAIMED or UNAVAILABLE
    :raises ValueError: the columns differ in length, or a value cannot be
    :raises TypeError: a name is no str, or a number is none
    :raises OverflowError: the sizes add up to more than 2 ** 63 - 1 bytes, or there are 2 ** 31 - 1 namespaces or more
    """

    cdef Table table

    def __cinit__(self, labels, sizes, nodes, names, states):
        labels = read_integers("label", labels, -1, INT_MAX)
        sizes = read_integers("size", sizes, 1, INT64_MAX)
        nodes = read_integers("node", nodes, -1, INT_MAX)
        names = list(names)
        states = read_integers("state", states, CLEAN, UNAVAILABLE)
        lengths = list(map(len, (labels, sizes, nodes, names, states)))
        if len(set(lengths)) > 1:
            raise ValueError(f"labels, sizes, nodes, names and states differ in length: {lengths}")
        if len(labels) >= INT_MAX or sum(sizes) > INT64_MAX:
            raise OverflowError("there are too many namespaces, or too many bytes in all")
        for index, name in enumerate(names):
            if not isinstance(name, str):
                raise TypeError(f"namespace {index}: the name is no str but {type(name).__name__}")
        # Sorting is stable: the last key counts most.
        by_rank = sorted(range(len(labels)), key=names.__getitem__)
        by_rank.sort(key=sizes.__getitem__)
        by_position = sorted(by_rank, key=nodes.__getitem__)
        by_position.sort(key=labels.__getitem__)
        group_sizes = sorted(collections.Counter(zip(labels, nodes)).items())
        make_empty(&self.table, len(labels), sorted(set(labels)), sorted(set(nodes)), len(group_sizes))
        fill_groups(&self.table, group_sizes)
        fill_namespaces(&self.table, by_rank, by_position, sizes)
        for index, state in enumerate(states):
            self.put(index, state)

    def __dealloc__(self):
        free_blocks(&self.table)

    def choose(self, labels, int node=-1) -> tuple[int, ...] | None:
        """Choose one free namespace for each label, all or nothing. They stay free.

        :param labels: label ids; the same one may be there several times
        :param node: wanted NUMA node, -1 for any
        :returns: an index for each label, or None when there are not enough free ones
        :raises ValueError: there are no labels, or a label or the node is negative
        """
        cdef list wanted = labels if type(labels) is list else list(labels)
        cdef Item small[SMALL]
        cdef Request request
        cdef int number

        if node < -1 or not wanted:
            raise ValueError("the request is empty" if not wanted else f"node {node} is negative")
        open_request(&request, small, len(wanted))
        try:
            for number in range(request.count):
                request.items[number].trial = label_id(wanted[number])
            return self.chosen_indices(&request) if choose(&self.table, &request, node) else None
        finally:
            close_request(&request, small)

    def put(self, int index, int state) -> None:
        """Set the state of one namespace.

        :raises ValueError: there is no such state
        :raises IndexError: there is no such namespace
        """
        if index < 0 or index >= self.table.count:
            raise IndexError(f"there is no namespace {index}; there are {self.table.count}")
        if not CLEAN <= state <= UNAVAILABLE:
            raise ValueError(f"namespace {index}: there is no state {state}")
        set_state(&self.table, self.table.position_of[index], state)

    def counts(self, int label) -> tuple[int, int, int, int, int]:
        """How many of a label are CLEAN, DIRTY, UNKNOWN, CLAIMED and UNAVAILABLE.

        :raises ValueError: the label is negative
        """
        cdef int number = find(self.table.label_ids, 0, self.table.label_count, label_id(label))
        cdef int totals[5]
        cdef int group, state

        totals = [0, 0, 0, 0, 0]
        if number != NONE:
            for group in range(self.table.labels[number].first_group, self.table.labels[number + 1].first_group):
                for state in range(5):
                    totals[state] += self.table.groups[group].counts[state]
        return totals[0], totals[1], totals[2], totals[3], totals[4]

    cdef tuple chosen_indices(self, const Request *request):
        cdef tuple indices = PyTuple_New(request.count)
        cdef object index
        cdef int number

        for number in range(request.count):
            index = self.table.namespaces[request.items[number].chosen].index
            Py_INCREF(index)  # the tuple takes a reference of its own
            PyTuple_SetItem(indices, number, index)
        return indices


cdef list read_integers(str what, values, int64_t low, int64_t high):
    """One column of the table.

    :raises ValueError: a value is out of range
    """
    cdef list numbers = list(map(operator.index, values))

    for index, number in enumerate(numbers):
        if not low <= number <= high:
            raise ValueError(f"namespace {index}: {what} {number} is not between {low} and {high}")
    return numbers


cdef int label_id(int label) except -1:
    if label < 0:
        raise ValueError(f"label {label} is negative")
    return label
