"""The table of one host's namespaces in C arrays: which label each carries, who holds it, which to choose next.

Values in, indices out. What an index, a label or a node number stands for is the caller's business, as are the ledger
and the lock: nothing here releases the GIL, and a table is to be used by one thread at a time.

Inside, a namespace is known by its position: positions are sorted by label, node, size, name and index, so that those
of one label on one node, a group, lie side by side, the preferred first. For each state that is free a bitmap over the
positions finds the next one in as many steps as it has levels, 4 for a million namespaces; counts are kept by group.
Those of one owner form a ring, oldest first, and a hash table finds the oldest. So the cost of a request depends on its
length and on the number of nodes, not on the number of namespaces. What is marked "for one request" means nothing
between requests.

There are no list comprehensions: in Cython 3.3.1 they release an item twice when memory runs out.
"""

import collections
import operator

from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree, PyMem_RawMalloc
from cpython.ref cimport Py_INCREF, Py_XDECREF, Py_XINCREF, PyObject
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from libc.limits cimport INT_MAX
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint64_t
from libc.string cimport memset

cimport cython

cdef extern from *:
    int lowest_bit "__builtin_ctzll"(unsigned long long word) noexcept nogil

cpdef enum:
    CLEAN = 0        # these three are free, unless they have an owner, and are preferred in this order
    DIRTY = 1
    UNKNOWN = 2
    CLAIMED = 3
    UNAVAILABLE = 4

cpdef enum:
    NOT_FOUND = 1
    AMBIGUOUS = 2
    REPEATED = 3
    TWO_LABELS = 4

cdef enum:
    NONE = -1
    NOT_THERE = -1           # for match()
    SEVERAL = -2
    SMALL = 16               # requests of so many labels are served without allocating memory
    EXACT_NODES = 16         # up to so many nodes, and so much work, every set of nodes is looked at
    EXACT_WORK = 1 << 24     # labels of the request times sets of nodes: about a tenth of a second
    LEVELS = 6               # 64 ** 6 > INT_MAX
    BLOCKS = 9 + 3 * LEVELS  # as many allocations does a table make at most

cdef struct Namespace:
    int64_t size
    PyObject *owner          # the same object in all of a ring
    int index                # what the caller calls it
    int rank                 # its place in the order by size, name, index
    int group
    int after                # ring of its owner
    int before
    int chained              # where the next ring begins that hashes alike
    uint8_t state
    uint8_t marked           # for one request

cdef struct Group:
    int start                # first position; the last is before the start of the next group
    int node
    int counts[5]            # by kind_of()
    int cursor               # for one request

cdef struct Label:
    int first_group          # the last is before the first of the next label
    int demand               # for one request

cdef struct Node:
    int gain                 # for one request: what the node would add
    bint taken               # for one request: whether it is in the set that is tried

cdef struct Bitmap:
    int levels
    uint64_t *words[LEVELS]  # a bit of words[n + 1] tells whether a word of words[n] has any

cdef struct Table:
    int count
    int label_count
    int node_count
    Namespace *namespaces    # by position
    int *position_of         # by index
    Group *groups            # by label and node; one more marks the end, as of the labels
    int *group_nodes
    Label *labels
    int *label_ids           # ascending
    Node *nodes
    int *node_ids            # ascending
    Bitmap free[3]           # by state
    int *buckets             # where a ring begins, by hash of its owner
    Py_hash_t bucket_mask
    void *blocks[BLOCKS]
    int block_count
    size_t nbytes

cdef struct Demand:          # one label of a request
    int label
    int first                # items that ask for it
    int last
    int wanted
    int home                 # group on the wanted node
    int alone                # group on the node that is tried
    int share                # so many come from there
    int missing              # so many do not

cdef struct Item:
    int chosen               # position; in an exact request what was given
    int trial
    int following            # item of the same label
    Demand demand            # not of this item: the request's demands are spread over its items

cdef struct Request:
    int count
    Item *items
    int demand_count
    int home                 # the wanted node
    bint found
    int64_t staleness        # of what is chosen, as is its size
    int64_t size


# Bitmaps

cdef int find_bit(const Bitmap *bitmap, int start) noexcept nogil:
    """The first bit from `start` on that is set, INT_MAX if there is none."""
    cdef int level, depth
    cdef uint64_t word

    for level in range(bitmap.levels):
        word = bitmap.words[level][start >> 6] >> (start & 63)
        if word:
            start += lowest_bit(word)
            for depth in range(level - 1, -1, -1):
                start = (start << 6) + lowest_bit(bitmap.words[depth][start])
            return start
        start = (start >> 6) + 1
    return INT_MAX


cdef void set_bit(Bitmap *bitmap, int bit) noexcept nogil:
    cdef int level
    cdef uint64_t before

    for level in range(bitmap.levels):
        before = bitmap.words[level][bit >> 6]
        bitmap.words[level][bit >> 6] = before | (<uint64_t>1 << (bit & 63))
        if before:
            return
        bit >>= 6


cdef void clear_bit(Bitmap *bitmap, int bit) noexcept nogil:
    cdef int level

    for level in range(bitmap.levels):
        bitmap.words[level][bit >> 6] &= ~(<uint64_t>1 << (bit & 63))
        if bitmap.words[level][bit >> 6]:
            return
        bit >>= 6


# States, groups and rings

cdef int find(const int *values, int low, int high, int value) noexcept nogil:
    """Where `value` is in the ascending values[low:high], NONE if it is not."""
    cdef int middle

    while low < high:
        middle = low + (high - low >> 1)
        if values[middle] == value:
            return middle
        if values[middle] < value:
            low = middle + 1
        else:
            high = middle
    return NONE


cdef int find_group(const Table *table, int label, int node) noexcept nogil:
    return find(table.group_nodes, table.labels[label].first_group, table.labels[label + 1].first_group, node)


cdef int free_of(const Group *group) noexcept nogil:
    return group.counts[CLEAN] + group.counts[DIRTY] + group.counts[UNKNOWN]


cdef int kind_of(const Namespace *namespace) noexcept nogil:
    """What it counts as: whatever its state, one that has an owner counts as claimed."""
    return namespace.state if namespace.owner == NULL else CLAIMED


cdef void set_state(Table *table, int position, int state, PyObject *owner) noexcept nogil:
    cdef Namespace *namespace = &table.namespaces[position]
    cdef int *counts = table.groups[namespace.group].counts
    cdef int kind = kind_of(namespace)

    counts[kind] -= 1
    if kind <= UNKNOWN:
        clear_bit(&table.free[kind], position)
    namespace.state = state
    namespace.owner = owner
    kind = kind_of(namespace)
    counts[kind] += 1
    if kind <= UNKNOWN:
        set_bit(&table.free[kind], position)


cdef void join_ring(Table *table, Py_hash_t owner_hash, int oldest, int position) noexcept nogil:
    """Append to the ring that begins at `oldest`, or begin one if that is NONE."""
    cdef Namespace *namespaces = table.namespaces
    cdef int *bucket = &table.buckets[owner_hash & table.bucket_mask]

    if oldest == NONE:
        namespaces[position].after = namespaces[position].before = position
        namespaces[position].chained = bucket[0]
        bucket[0] = position
        return
    namespaces[position].after = oldest
    namespaces[position].before = namespaces[oldest].before
    namespaces[namespaces[oldest].before].after = position
    namespaces[oldest].before = position


cdef void leave_ring(Table *table, Py_hash_t owner_hash, int position) noexcept nogil:
    cdef Namespace *namespaces = table.namespaces
    cdef Namespace *leaving = &namespaces[position]
    cdef int *link = &table.buckets[owner_hash & table.bucket_mask]

    while link[0] != NONE and link[0] != position:
        link = &namespaces[link[0]].chained
    if link[0] == position:
        if leaving.after == position:
            link[0] = leaving.chained
        else:
            link[0] = leaving.after
            namespaces[leaving.after].chained = leaving.chained
    namespaces[leaving.before].after = leaving.after
    namespaces[leaving.after].before = leaving.before


cdef void drop_ring(Table *table, Py_hash_t owner_hash, int oldest) noexcept nogil:
    """Forget where a ring begins."""
    cdef int *link = &table.buckets[owner_hash & table.bucket_mask]

    while link[0] != oldest:
        link = &table.namespaces[link[0]].chained
    link[0] = table.namespaces[oldest].chained


# Choosing

cdef bint read_demands(Table *table, Request *request) noexcept nogil:
    """Gather the items, whose label ids are in `trial`, by label; False when nobody carries one of them."""
    cdef int number, label
    cdef Demand *demand
    cdef bint known = True

    request.demand_count = 0
    for number in range(request.count):
        label = find(table.label_ids, 0, table.label_count, request.items[number].trial)
        if label == NONE:
            known = False
            break
        request.items[number].following = NONE
        if table.labels[label].demand == NONE:
            table.labels[label].demand = request.demand_count
            demand = &request.items[request.demand_count].demand
            demand.label = label
            demand.first = number
            demand.wanted = 0
            request.demand_count += 1
        else:
            demand = &request.items[table.labels[label].demand].demand
            request.items[demand.last].following = number
        demand.last = number
        demand.wanted += 1
    for number in range(request.demand_count):
        table.labels[request.items[number].demand.label].demand = NONE
    return known


cdef int free_of_label(const Table *table, int number, bint in_set) noexcept nogil:
    """How many are free on the host, or on the nodes that are taken."""
    cdef const Label *label = &table.labels[number]
    cdef int group, total = 0

    for group in range(label.first_group, label[1].first_group):
        if not in_set or table.nodes[table.groups[group].node].taken:
            total += free_of(&table.groups[group])
    return total


cdef int share_home(const Table *table, Request *request) noexcept nogil:
    """Take what the wanted node has; how many items are still missing then, NONE when the host has not enough."""
    cdef int number, missing = 0
    cdef Demand *demand

    for number in range(request.demand_count):
        demand = &request.items[number].demand
        demand.home = NONE if request.home == NONE else find_group(table, demand.label, request.home)
        demand.share = 0 if demand.home == NONE else min(demand.wanted, free_of(&table.groups[demand.home]))
        demand.missing = demand.wanted - demand.share
        if demand.missing and demand.wanted > free_of_label(table, demand.label, False):
            return NONE
        missing += demand.missing
    return missing


cdef int pick_from_group(const Table *table, Request *request, int group, int item, int count) noexcept nogil:
    """Try the best `count` of one group for `item` and those that follow; the next item."""
    cdef int state, position, _

    for state in range(3):
        position = table.groups[group].start
        for _ in range(min(count, table.groups[group].counts[state])):
            position = find_bit(&table.free[state], position)
            request.items[item].trial = position
            item = request.items[item].following
            position += 1
            count -= 1
        if count == 0:
            break
    return item


cdef Group *next_in_set(const Table *table, const Label *label) noexcept nogil:
    """The group whose cursor is at the lowest rank, NULL when all are through."""
    cdef int number, rank = INT_MAX
    cdef Group *group
    cdef Group *best = NULL

    for number in range(label.first_group, label[1].first_group):
        group = &table.groups[number]
        if group.cursor < group[1].start and table.namespaces[group.cursor].rank < rank:
            rank = table.namespaces[group.cursor].rank
            best = group
    return best


cdef void pick_from_set(const Table *table, Request *request, const Demand *demand, int item) noexcept nogil:
    """Try the best of one label on the nodes that are taken, for `item` and those that follow."""
    cdef const Label *label = &table.labels[demand.label]
    cdef int state, number
    cdef Group *group

    for state in range(3):
        for number in range(label.first_group, label[1].first_group):
            group = &table.groups[number]
            group.cursor = INT_MAX
            if group.counts[state] and table.nodes[group.node].taken:
                group.cursor = find_bit(&table.free[state], group.start)
        group = next_in_set(table, label)
        while item != NONE and group != NULL:
            request.items[item].trial = group.cursor
            item = request.items[item].following
            group.cursor = find_bit(&table.free[state], group.cursor + 1)
            group = next_in_set(table, label)


cdef bint precedes(const Table *table, const Request *request, int64_t staleness, int64_t size) noexcept nogil:
    """Whether the trial is to be preferred to what is chosen."""
    cdef int number, trial, chosen

    if staleness != request.staleness:
        return staleness < request.staleness
    if size != request.size:
        return size < request.size
    for number in range(request.count):
        trial = table.namespaces[request.items[number].trial].rank
        chosen = table.namespaces[request.items[number].chosen].rank
        if trial != chosen:
            return trial < chosen
    return False


cdef void keep(Request *request) noexcept nogil:
    """Choose what was tried."""
    cdef int number

    request.found = True
    for number in range(request.count):
        request.items[number].chosen = request.items[number].trial


cdef void try_nodes(const Table *table, Request *request, bint alone) noexcept nogil:
    """Pick the best from the wanted node, and then from that of `Demand.alone`, or from those that are taken."""
    cdef int number, item
    cdef const Demand *demand

    for number in range(request.demand_count):
        demand = &request.items[number].demand
        item = demand.first
        if demand.share:
            item = pick_from_group(table, request, demand.home, item, demand.share)
        if demand.missing and alone:
            pick_from_group(table, request, demand.alone, item, demand.missing)
        elif demand.missing:
            pick_from_set(table, request, demand, item)


cdef void consider(const Table *table, Request *request, bint alone) noexcept nogil:
    """Choose from these nodes, as of :func:`try_nodes`, if that is better than what is chosen by now."""
    cdef int number
    cdef int64_t size = 0, staleness = 0
    cdef const Namespace *namespace

    try_nodes(table, request, alone)
    for number in range(request.count):
        namespace = &table.namespaces[request.items[number].trial]
        size += namespace.size
        if namespace.state == UNKNOWN:
            staleness += <int64_t>request.count + 1  # one more unknown is worse than all dirty
        else:
            staleness += namespace.state == DIRTY
    if request.found and not precedes(table, request, staleness, size):
        return
    request.size = size
    request.staleness = staleness
    keep(request)


cdef bint serves_alone(const Table *table, Request *request, int node) noexcept nogil:
    """Whether `node` has all that the wanted node has not. If so, `Demand.alone` says where."""
    cdef int number
    cdef Demand *demand

    for number in range(request.demand_count):
        demand = &request.items[number].demand
        if demand.missing:
            demand.alone = find_group(table, demand.label, node)
            if demand.alone == NONE or free_of(&table.groups[demand.alone]) < demand.missing:
                return False
    return True


cdef void search_single_nodes(const Table *table, Request *request) noexcept nogil:
    cdef const Label *label
    cdef int number = 0, node

    while request.items[number].demand.missing == 0:
        number += 1
    label = &table.labels[request.items[number].demand.label]
    for number in range(label.first_group, label[1].first_group):
        node = table.groups[number].node
        if node != request.home and serves_alone(table, request, node):
            consider(table, request, True)


cdef int list_nodes(const Table *table, const Request *request, int *listed) noexcept nogil:
    """The nodes that have any of what is missing, and how many they are: when not all are listed, too many."""
    cdef int number, index, count = 0
    cdef const Label *label
    cdef const Group *group

    for number in range(request.demand_count):
        label = &table.labels[request.items[number].demand.label]
        if request.items[number].demand.missing == 0:
            continue
        for index in range(label.first_group, label[1].first_group):
            group = &table.groups[index]
            if group.node == request.home or table.nodes[group.node].taken or free_of(group) == 0:
                continue
            if count < EXACT_NODES:
                listed[count] = group.node
                table.nodes[group.node].taken = True
            count += 1
    take(table, listed, min(count, EXACT_NODES), 0)
    return count


cdef void take(const Table *table, const int *nodes, int count, unsigned int chosen) noexcept nogil:
    """Try the set of those nodes whose bit is set in `chosen`."""
    cdef int number

    for number in range(count):
        table.nodes[nodes[number]].taken = chosen >> number & 1


cdef bint set_serves(const Table *table, const Request *request) noexcept nogil:
    cdef int number
    cdef const Demand *demand

    for number in range(request.demand_count):
        demand = &request.items[number].demand
        if demand.missing and free_of_label(table, demand.label, True) < demand.missing:
            return False
    return True


cdef void search_sets(const Table *table, Request *request, const int *nodes, int count) noexcept nogil:
    """Consider every set of as few nodes as will do, of two at least."""
    cdef int members
    cdef unsigned int chosen, carried

    for members in range(2, count + 1):
        if request.found:
            break
        chosen = (<unsigned int>1 << members) - 1
        while chosen >> count == 0:
            take(table, nodes, count, chosen)
            if set_serves(table, request):
                consider(table, request, False)
            # Gosper's hack: the next number with as many bits.
            carried = chosen + (chosen & (~chosen + 1))
            chosen = ((chosen ^ carried) >> (2 + lowest_bit(chosen))) | carried
    take(table, nodes, count, 0)


cdef int best_addition(const Table *table, const Request *request) noexcept nogil:
    """The node to add to those that are taken, NONE when they serve."""
    cdef int number, index, short_by, best = NONE
    cdef const Demand *demand
    cdef const Label *label
    cdef const Group *group
    cdef Node *node

    for number in range(request.demand_count):
        demand = &request.items[number].demand
        label = &table.labels[demand.label]
        short_by = demand.missing - free_of_label(table, demand.label, True)
        for index in range(label.first_group, label[1].first_group):
            group = &table.groups[index]
            node = &table.nodes[group.node]
            if short_by <= 0 or node.taken or group.node == request.home:
                continue
            node.gain += min(short_by, free_of(group))
            if best == NONE or node.gain > table.nodes[best].gain:
                best = group.node
            elif node.gain == table.nodes[best].gain and group.node < best:
                best = group.node
    return best


cdef void reset_nodes(const Table *table, const Request *request, bint taken) noexcept nogil:
    """Forget what each node would add, and with `taken` what is taken too."""
    cdef int number, index
    cdef const Label *label
    cdef Node *node

    for number in range(request.demand_count):
        label = &table.labels[request.items[number].demand.label]
        for index in range(label.first_group, label[1].first_group):
            node = &table.nodes[table.groups[index].node]
            node.gain = 0
            if taken:
                node.taken = False


cdef void search_greedily(const Table *table, Request *request) noexcept nogil:
    """Take the node that adds most, again and again."""
    cdef int node = best_addition(table, request)

    while node != NONE:
        table.nodes[node].taken = True
        reset_nodes(table, request, False)
        node = best_addition(table, request)
    consider(table, request, False)
    reset_nodes(table, request, True)


cdef bint choose(Table *table, Request *request, int wanted_node) noexcept nogil:
    """Choose a namespace for each item, as :class:`NamespaceTable` says; False when there are not enough."""
    cdef int nodes[EXACT_NODES]
    cdef int node_count, missing

    request.found = False
    request.home = NONE if wanted_node == NONE else find(table.node_ids, 0, table.node_count, wanted_node)
    if table.node_count == 1:
        request.home = 0  # all there is, whatever is wanted
    if not read_demands(table, request):
        return False
    missing = share_home(table, request)
    if missing == NONE:
        return False
    if missing == 0:
        try_nodes(table, request, False)
        keep(request)
        return True
    search_single_nodes(table, request)
    if request.found:
        return True
    node_count = list_nodes(table, request, nodes)
    if node_count <= EXACT_NODES and <int64_t>request.count << node_count <= EXACT_WORK:
        search_sets(table, request, nodes, node_count)
    else:
        search_greedily(table, request)
    return request.found


cdef int first_fault(const Table *table, const Request *request, const PyObject *owner) noexcept nogil:
    """The first item that is not `owner`'s, or not free if that is NULL, or was there before; NONE if all are right."""
    cdef int number, checked = 0
    cdef Namespace *namespace

    while checked < request.count:
        namespace = &table.namespaces[request.items[checked].chosen]
        if namespace.marked or namespace.owner != owner or (owner == NULL and namespace.state == UNAVAILABLE):
            break
        namespace.marked = True
        checked += 1
    for number in range(checked):
        table.namespaces[request.items[number].chosen].marked = False
    return NONE if checked == request.count else checked


# Memory, and what comes from Python

cdef void *allocate(Table *table, size_t count, size_t size) except NULL:
    """Zeroed memory that lasts as long as the table."""
    cdef void *block = PyMem_RawCalloc(count, size)

    if block == NULL:
        raise MemoryError
    table.blocks[table.block_count] = block
    table.block_count += 1
    table.nbytes += count * size
    return block


cdef int make_bitmap(Table *table, Bitmap *bitmap) except -1:
    """All clear. Each level ends with a bit that is never set, for a search that has run out of the level below."""
    cdef int bits = table.count

    while bitmap.levels == 0 or bits > 1:
        bits = (bits >> 6) + 1
        bitmap.words[bitmap.levels] = <uint64_t *>allocate(table, bits, sizeof(uint64_t))
        bitmap.levels += 1
    return 0


cdef int open_request(Request *request, Item *small, Py_ssize_t count) except -1:
    """Make room for `count` items, in `small` if they fit."""
    if count > INT_MAX:
        raise OverflowError(f"a request of {count} namespaces is too long")
    request.count = <int>count
    request.items = small
    if count > SMALL:
        request.items = <Item *>PyMem_RawMalloc(<size_t>count * sizeof(Item))
        if request.items == NULL:
            raise MemoryError
    return 0


cdef void close_request(Request *request, const Item *small) noexcept nogil:
    if request.items != small:
        PyMem_RawFree(request.items)


cdef list read_integers(str what, values, int64_t low, int64_t high):
    """One column of the table.

    :raises ValueError: a value is out of range
    """
    cdef list numbers = list(map(operator.index, values))

    for index, number in enumerate(numbers):
        if not low <= number <= high:
            raise ValueError(f"namespace {index}: {what} {number} is not between {low} and {high}")
    return numbers


cdef int check_owner(int index, int state, owner) except -1:
    """Fail unless a namespace can have that state and owner at once."""
    if not CLEAN <= state <= UNAVAILABLE:
        raise ValueError(f"namespace {index}: there is no state {state}")
    if owner is None:
        if state == CLAIMED:
            raise ValueError(f"namespace {index}: it is claimed and has no owner")
    elif type(owner) is not str:
        raise TypeError(f"namespace {index}: the owner is no str but {type(owner).__name__}")
    elif state != CLAIMED and state != DIRTY:
        raise ValueError(f"namespace {index}: it has owner {owner} and is neither claimed nor dirty")
    return 0


cdef int label_id(int label) except -1:
    if label < 0:
        raise ValueError(f"label {label} is negative")
    return label


@cython.final
@cython.auto_pickle(False)
cdef class NamespaceTable:
    """The namespaces of one host. One thread at a time may use it: callers hold a lock.

    A namespace is free when it has no owner, is CLEAN, DIRTY or UNKNOWN, and carries a label. It counts as claimed when
    it has an owner, whatever its state: a DIRTY one that has an owner is reserved until it is wiped. What fails changes
    nothing. A number that is no C int raises TypeError or OverflowError.

    For one request :meth:`claim` chooses, of all that is free,

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
    :param states: CLEAN, DIRTY, UNKNOWN, CLAIMED or UNAVAILABLE (quarantined or missing)
    :param owners: who holds it, or None. A CLAIMED one has an owner, a DIRTY one may have
    :raises ValueError: the columns differ in length, or a value cannot be
    :raises TypeError: a name or an owner is no str, or a number is none
    :raises OverflowError: the sizes add up to more than 2 ** 63 - 1 bytes, or there are 2 ** 31 - 1 namespaces or more
    """

    cdef Table table

    def __cinit__(self, labels, sizes, nodes, names, states, owners):
        labels = read_integers("label", labels, -1, INT_MAX)
        sizes = read_integers("size", sizes, 1, INT64_MAX)
        nodes = read_integers("node", nodes, -1, INT_MAX)
        names = list(names)
        states = read_integers("state", states, CLEAN, UNAVAILABLE)
        owners = list(owners)
        lengths = list(map(len, (labels, sizes, nodes, names, states, owners)))
        if len(set(lengths)) > 1:
            raise ValueError(f"labels, sizes, nodes, names, states and owners differ in length: {lengths}")
        if len(labels) >= INT_MAX or sum(sizes) > INT64_MAX:
            raise OverflowError("there are too many namespaces, or too many bytes in all")
        for index in range(len(labels)):
            if not isinstance(names[index], str):
                raise TypeError(f"namespace {index}: the name is no str but {type(names[index]).__name__}")
            check_owner(index, states[index], owners[index])
        # Sorting is stable: the last key counts most.
        by_rank = sorted(range(len(labels)), key=names.__getitem__)
        by_rank.sort(key=sizes.__getitem__)
        by_position = sorted(by_rank, key=nodes.__getitem__)
        by_position.sort(key=labels.__getitem__)
        group_sizes = sorted(collections.Counter(zip(labels, nodes)).items())
        self.make_empty(len(labels), sorted(set(labels)), sorted(set(nodes)), len(group_sizes))
        self.fill_groups(group_sizes)
        self.fill_namespaces(by_rank, by_position, sizes)
        for index in range(len(labels)):
            self.put(index, states[index], owners[index])

    def __dealloc__(self):
        cdef int number

        if self.table.namespaces != NULL:
            for number in range(self.table.count):
                Py_XDECREF(self.table.namespaces[number].owner)
        for number in range(self.table.block_count):
            PyMem_RawFree(self.table.blocks[number])

    def __len__(self) -> int:
        return self.table.count

    def claim(self, str owner not None, labels, int node=-1) -> tuple[int, ...] | None:
        """Claim one namespace for each label, all or nothing. CLEAN ones become CLAIMED, others DIRTY and reserved.

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
            if not choose(&self.table, &request, node):
                return None
            indices = self.chosen_indices(&request)
            self.give(&request, owner)
            return indices
        finally:
            close_request(&request, small)

    def claim_exact(self, str owner not None, indices) -> None:
        """Claim exactly these, as :meth:`claim` does but whatever their label, or none.

        :raises ValueError: one is not free, or is given twice
        :raises IndexError: there is no such namespace
        """
        cdef tuple wanted = tuple(indices)
        cdef Item small[SMALL]
        cdef Request request
        cdef int fault

        open_request(&request, small, len(wanted))
        try:
            self.read_positions(&request, wanted)
            fault = first_fault(&self.table, &request, NULL)
            if fault != NONE:
                raise ValueError(f"namespace {wanted[fault]} is not free, or is given twice")
            self.give(&request, owner)
        finally:
            close_request(&request, small)

    def release(self, str owner not None) -> tuple[int, ...]:
        """Take back all that `owner` holds or has reserved. It becomes DIRTY and free.

        :returns: the indices, in the order in which they were claimed; empty if it holds nothing
        """
        cdef Table *table = &self.table
        cdef Py_hash_t owner_hash = hash(owner)
        cdef int position = self.find_ring(owner, owner_hash)
        cdef tuple indices = self.ring_indices(position)
        cdef PyObject *holder
        cdef int _

        if position != NONE:
            drop_ring(table, owner_hash, position)
        for _ in range(<int>len(indices)):
            holder = table.namespaces[position].owner
            set_state(table, position, DIRTY, NULL)
            Py_XDECREF(holder)
            position = table.namespaces[position].after
        return indices

    def release_exact(self, str owner not None, indices) -> None:
        """Take back exactly these.

        :raises ValueError: `owner` does not hold one, or it is given twice
        :raises IndexError: there is no such namespace
        """
        cdef tuple wanted = tuple(indices)
        cdef Py_hash_t owner_hash = hash(owner)
        cdef Item small[SMALL]
        cdef Request request
        cdef int number, fault, oldest

        open_request(&request, small, len(wanted))
        try:
            self.read_positions(&request, wanted)
            oldest = self.find_ring(owner, owner_hash)
            fault = first_fault(&self.table, &request, self.owner_in_ring(owner, oldest))
            if fault != NONE:
                raise ValueError(f"namespace {wanted[fault]} is not held by {owner}, or is given twice")
            for number in range(request.count):
                self.take_back(owner_hash, request.items[number].chosen)
        finally:
            close_request(&request, small)

    def put(self, int index, int state, owner) -> None:
        """Set one to what the ledger says, whatever it was. If its owner stays, so does its place among that one's.

        :param owner: str, or None
        :raises ValueError: no namespace can have this state and owner at once
        :raises IndexError: there is no such namespace
        """
        cdef Table *table = &self.table
        cdef int position = self.position(index)
        cdef int oldest = NONE
        cdef PyObject *before = table.namespaces[position].owner
        cdef PyObject *after = NULL

        check_owner(index, state, owner)
        if owner is not None:
            oldest = self.find_ring(owner, hash(owner))
            after = self.owner_in_ring(owner, oldest)
        if before != after:
            Py_XINCREF(after)
            if before != NULL:
                leave_ring(table, hash(<str>before), position)
            if after != NULL:
                join_ring(table, hash(owner), oldest, position)
        set_state(table, position, state, after)
        if before != after:
            Py_XDECREF(before)

    def state(self, int index) -> int:
        """CLEAN, DIRTY, UNKNOWN, CLAIMED or UNAVAILABLE.

        :raises IndexError: there is no such namespace
        """
        return self.table.namespaces[self.position(index)].state

    def owner(self, int index) -> str | None:
        """Who holds it or has it reserved.

        :raises IndexError: there is no such namespace
        """
        cdef PyObject *owner = self.table.namespaces[self.position(index)].owner

        return None if owner == NULL else <str>owner

    def held(self, str owner not None) -> tuple[int, ...]:
        """The indices of what `owner` holds or has reserved, in the order in which it got them here."""
        return self.ring_indices(self.find_ring(owner, hash(owner)))

    def free(self, int label) -> int:
        """How many of a label are free.

        :raises ValueError: the label is negative
        """
        return sum(self.counts(label)[:CLAIMED])

    def counts(self, int label) -> tuple[int, int, int, int, int]:
        """How many of a label are free and clean, free and dirty, free and unknown, claimed or reserved, unavailable.

        :raises ValueError: the label is negative
        """
        cdef int number = find(self.table.label_ids, 0, self.table.label_count, label_id(label))
        cdef int totals[5]
        cdef int group, kind

        totals = [0, 0, 0, 0, 0]
        if number != NONE:
            for group in range(self.table.labels[number].first_group, self.table.labels[number + 1].first_group):
                for kind in range(5):
                    totals[kind] += self.table.groups[group].counts[kind]
        return totals[0], totals[1], totals[2], totals[3], totals[4]

    def shortage(self, labels) -> dict[int, tuple[int, int]]:
        """How many are wanted and how many are free, by label, of the labels that do not have enough for a request.

        :raises ValueError: a label is negative
        """
        wanted = collections.Counter(labels)
        return {label: (count, self.free(label)) for label, count in wanted.items() if self.free(label) < count}

    def nbytes(self) -> int:
        """Bytes of memory of the table's arrays."""
        return self.table.nbytes

    # Inside

    cdef int make_empty(self, int count, list labels, list nodes, int group_count) except -1:
        cdef Table *table = &self.table
        cdef int number
        cdef size_t bucket_count = 1

        while bucket_count < <size_t>count:
            bucket_count *= 2
        table.count = count
        table.label_count = <int>len(labels)
        table.node_count = <int>len(nodes)
        table.bucket_mask = bucket_count - 1
        table.namespaces = <Namespace *>allocate(table, count, sizeof(Namespace))
        table.position_of = <int *>allocate(table, count, sizeof(int))
        table.buckets = <int *>allocate(table, bucket_count, sizeof(int))
        table.groups = <Group *>allocate(table, group_count + 1, sizeof(Group))
        table.group_nodes = <int *>allocate(table, group_count, sizeof(int))
        table.labels = <Label *>allocate(table, len(labels) + 1, sizeof(Label))
        table.label_ids = <int *>allocate(table, len(labels), sizeof(int))
        table.nodes = <Node *>allocate(table, len(nodes), sizeof(Node))
        table.node_ids = <int *>allocate(table, len(nodes), sizeof(int))
        memset(table.buckets, NONE, bucket_count * sizeof(int))
        for number in range(3):
            make_bitmap(table, &table.free[number])
        for number in range(table.label_count):
            table.label_ids[number] = labels[number]
            table.labels[number].demand = NONE
        for number in range(table.node_count):
            table.node_ids[number] = nodes[number]
        return 0

    cdef int fill_groups(self, list group_sizes) except -1:
        """Lay out the groups, each unavailable as yet, from ((label, node), size) in their order."""
        cdef Table *table = &self.table
        cdef int number, label, node, size, position, label_number = NONE, start = 0
        cdef Group *group

        for number, ((label, node), size) in enumerate(group_sizes):
            if label_number == NONE or table.label_ids[label_number] != label:
                label_number += 1
                table.labels[label_number].first_group = number
            group = &table.groups[number]
            group.start = start
            group.node = table.group_nodes[number] = find(table.node_ids, 0, table.node_count, node)
            group.counts[UNAVAILABLE] = size
            for position in range(start, start + size):
                table.namespaces[position].group = number
            start += size
        table.groups[len(group_sizes)].start = start
        table.labels[table.label_count].first_group = <int>len(group_sizes)
        return 0

    cdef int fill_namespaces(self, list by_rank, list by_position, list sizes) except -1:
        cdef Table *table = &self.table
        cdef int index, position, rank

        for position, index in enumerate(by_position):
            table.position_of[index] = position
            table.namespaces[position].index = index
            table.namespaces[position].size = sizes[index]
            table.namespaces[position].state = UNAVAILABLE
        for rank, index in enumerate(by_rank):
            table.namespaces[table.position_of[index]].rank = rank
        return 0

    cdef int position(self, int index) except -1:
        if index < 0 or index >= self.table.count:
            raise IndexError(f"there is no namespace {index}; there are {self.table.count}")
        return self.table.position_of[index]

    cdef int read_positions(self, Request *request, tuple indices) except -1:
        cdef int number = 0

        for index in indices:
            request.items[number].chosen = self.position(index)
            number += 1
        return 0

    cdef int find_ring(self, str owner, Py_hash_t owner_hash) except -2:
        """Where the ring of `owner` begins, NONE if it holds nothing."""
        cdef int position = self.table.buckets[owner_hash & self.table.bucket_mask]

        while position != NONE and owner != <str>self.table.namespaces[position].owner:
            position = self.table.namespaces[position].chained
        return position

    cdef PyObject *owner_in_ring(self, str owner, int oldest) noexcept:
        """The object by which the ring that begins at `oldest` knows `owner`, the object itself if that is NONE."""
        return <PyObject *>owner if oldest == NONE else self.table.namespaces[oldest].owner

    cdef tuple ring_indices(self, int oldest):
        """The indices of the ring that begins at `oldest`, none if that is NONE."""
        cdef const Namespace *namespaces = self.table.namespaces
        cdef int position = oldest
        cdef int number, count = 0
        cdef tuple indices
        cdef object index

        while position != NONE:
            count += 1
            position = namespaces[position].after
            if position == oldest:
                break
        indices = PyTuple_New(count)
        for number in range(count):
            index = namespaces[position].index
            Py_INCREF(index)  # the tuple takes a reference of its own
            PyTuple_SET_ITEM(indices, number, index)
            position = namespaces[position].after
        return indices

    cdef tuple chosen_indices(self, const Request *request):
        cdef tuple indices = PyTuple_New(request.count)
        cdef object index
        cdef int number

        for number in range(request.count):
            index = self.table.namespaces[request.items[number].chosen].index
            Py_INCREF(index)  # the tuple takes a reference of its own
            PyTuple_SET_ITEM(indices, number, index)
        return indices

    cdef int give(self, const Request *request, str owner) except -1:
        """Make what is chosen `owner`'s."""
        cdef Table *table = &self.table
        cdef Py_hash_t owner_hash = hash(owner)
        cdef int oldest = self.find_ring(owner, owner_hash)
        cdef PyObject *holder = self.owner_in_ring(owner, oldest)
        cdef int number, position

        for number in range(request.count):
            position = request.items[number].chosen
            Py_XINCREF(holder)
            join_ring(table, owner_hash, oldest, position)
            set_state(table, position, CLAIMED if table.namespaces[position].state == CLEAN else DIRTY, holder)
            if oldest == NONE:
                oldest = position
        return 0

    cdef void take_back(self, Py_hash_t owner_hash, int position) noexcept:
        cdef PyObject *owner = self.table.namespaces[position].owner

        leave_ring(&self.table, owner_hash, position)
        set_state(&self.table, position, DIRTY, NULL)
        Py_XDECREF(owner)


# Matching

def match(names, uuids, entries) -> tuple[list[int], list[tuple[int, int]]]:
    """Find the namespaces that the configuration names.

    A text that is a uuid, in whatever case, means that namespace; any other is a name.

    :param names: name of each namespace, or None
    :param uuids: uuid of each namespace, or None
    :param entries: (label id, name or uuid) in the order of the configuration
    :returns: label id of each namespace, -1 for one that is under none; and (problem, index of the entry) of each entry
        that is wrong. The problem is NOT_FOUND, AMBIGUOUS (several have that name), REPEATED (it is under this label
        already, perhaps called otherwise) or TWO_LABELS (it is under another label already)
    :raises ValueError: there are not as many names as uuids, or a label is negative
    """
    cdef list labels = [NONE] * len(names)
    cdef list problems = []
    cdef dict by_name = index_by(names, False)
    cdef dict by_uuid = index_by(uuids, True)
    cdef int label, index

    if len(names) != len(uuids):
        raise ValueError(f"there are {len(names)} names and {len(uuids)} uuids")
    for number, (label, text) in enumerate(entries):
        index = by_uuid.get(text.lower(), by_name.get(text, NOT_THERE))
        if index < 0:
            problems.append((NOT_FOUND if index == NOT_THERE else AMBIGUOUS, number))
        elif labels[index] == NONE:
            labels[index] = label_id(label)
        else:
            problems.append((REPEATED if labels[index] == label else TWO_LABELS, number))
    return labels, problems


cdef dict index_by(texts, bint folded):
    """Where each text is, SEVERAL if that is not one place; with `folded`, each in lower case."""
    cdef dict places = {}

    for index, text in enumerate(texts):
        if text is not None:
            text = text.lower() if folded else text
            if places.setdefault(text, index) is not index:
                places[text] = SEVERAL
    return places
