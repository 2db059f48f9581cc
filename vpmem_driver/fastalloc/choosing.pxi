"""The choice for a request, as :class:`NamespaceTable` says. Nothing of it changes what is free."""

cdef enum:
    EXACT_NODES = 16       # up to so many nodes, and so much work, every set of nodes is looked at
    EXACT_WORK = 1 << 24   # labels of the request times sets of nodes: about a tenth of a second


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
