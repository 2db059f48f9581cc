"""The namespaces that the configuration names."""

cdef enum:
    NOT_THERE = -1
    SEVERAL = -2


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
