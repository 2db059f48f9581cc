"""The arrays of a table: its namespaces by position, their groups, labels and nodes, and what is free."""

cdef enum:
    NONE = -1
    BLOCKS = 8 + 3 * LEVELS  # a table makes at most so many allocations

cdef struct Namespace:
    int64_t size
    int index                # what the caller calls it
    int rank                 # its place in the order by size, name, index
    int group
    uint8_t state

cdef struct Group:
    int start                # first position; the last is before the start of the next group
    int node
    int counts[5]            # by state
    int cursor               # for one request

cdef struct Label:
    int first_group          # the last is before the first of the next label
    int demand               # for one request

cdef struct Node:
    int gain                 # for one request: what the node would add
    bint taken               # for one request: whether it is in the set that is tried

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
    void *blocks[BLOCKS]
    int block_count


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


cdef int free_of_label(const Table *table, int number, bint in_set) noexcept nogil:
    """How many are free on the host, or on the nodes that are taken."""
    cdef const Label *label = &table.labels[number]
    cdef int group, total = 0

    for group in range(label.first_group, label[1].first_group):
        if not in_set or table.nodes[table.groups[group].node].taken:
            total += free_of(&table.groups[group])
    return total


cdef void set_state(Table *table, int position, int state) noexcept nogil:
    cdef Namespace *namespace = &table.namespaces[position]
    cdef int *counts = table.groups[namespace.group].counts

    counts[namespace.state] -= 1
    if namespace.state <= UNKNOWN:
        clear_bit(&table.free[namespace.state], position)
    namespace.state = state
    counts[state] += 1
    if state <= UNKNOWN:
        set_bit(&table.free[state], position)


cdef void *allocate(Table *table, size_t count, size_t size) except NULL:
    """Zeroed memory that lasts as long as the table."""
    cdef void *block = PyMem_Calloc(count, size)

    if block == NULL:
        raise MemoryError
    table.blocks[table.block_count] = block
    table.block_count += 1
    return block


cdef void free_blocks(Table *table) noexcept:
    cdef int number

    for number in range(table.block_count):
        PyMem_Free(table.blocks[number])


cdef int make_bitmap(Table *table, Bitmap *bitmap) except -1:
    """All clear. Each level ends with a bit that is never set, for a search that has run out of the level below."""
    cdef int bits = table.count

    while bitmap.levels == 0 or bits > 1:
        bits = (bits >> 6) + 1
        bitmap.words[bitmap.levels] = <uint64_t *>allocate(table, bits, sizeof(uint64_t))
        bitmap.levels += 1
    return 0


cdef int make_empty(Table *table, int count, list labels, list nodes, int group_count) except -1:
    cdef int number

    table.count = count
    table.label_count = <int>len(labels)
    table.node_count = <int>len(nodes)
    table.namespaces = <Namespace *>allocate(table, count, sizeof(Namespace))
    table.position_of = <int *>allocate(table, count, sizeof(int))
    table.groups = <Group *>allocate(table, group_count + 1, sizeof(Group))
    table.group_nodes = <int *>allocate(table, group_count, sizeof(int))
    table.labels = <Label *>allocate(table, len(labels) + 1, sizeof(Label))
    table.label_ids = <int *>allocate(table, len(labels), sizeof(int))
    table.nodes = <Node *>allocate(table, len(nodes), sizeof(Node))
    table.node_ids = <int *>allocate(table, len(nodes), sizeof(int))
    for number in range(3):
        make_bitmap(table, &table.free[number])
    for number in range(table.label_count):
        table.label_ids[number] = labels[number]
        table.labels[number].demand = NONE
    for number in range(table.node_count):
        table.node_ids[number] = nodes[number]
    return 0


cdef int fill_groups(Table *table, list group_sizes) except -1:
    """Lay out the groups, each unavailable as yet, from ((label, node), size) in their order."""
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


cdef int fill_namespaces(Table *table, list by_rank, list by_position, list sizes) except -1:
    cdef int index, position, rank

    for position, index in enumerate(by_position):
        table.position_of[index] = position
        table.namespaces[position].index = index
        table.namespaces[position].size = sizes[index]
        table.namespaces[position].state = UNAVAILABLE
    for rank, index in enumerate(by_rank):
        table.namespaces[table.position_of[index]].rank = rank
    return 0
