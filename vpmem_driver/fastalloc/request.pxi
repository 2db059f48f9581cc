"""A request: its labels, what the wanted node has of them, and what is still missing."""

cdef enum:
    SMALL = 16  # requests of so many labels are served without allocating memory

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
    int chosen               # position
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


cdef int open_request(Request *request, Item *small, Py_ssize_t count) except -1:
    """Make room for `count` items, in `small` if they fit."""
    if count > INT_MAX:
        raise OverflowError(f"a request of {count} namespaces is too long")
    request.count = <int>count
    request.items = small
    if count > SMALL:
        request.items = <Item *>PyMem_Malloc(<size_t>count * sizeof(Item))
        if request.items == NULL:
            raise MemoryError
    return 0


cdef void close_request(Request *request, const Item *small) noexcept:
    if request.items != small:
        PyMem_Free(request.items)


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
