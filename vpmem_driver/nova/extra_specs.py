"""Validators of the flavor extra specs ``vpmem:on_resize`` and ``vpmem:on_shelve``, for Nova's API."""

from nova.api.validation.extra_specs import base

_SPECS = {
    "vpmem:on_resize": (
        ("copy", "discard", "refuse"),
        "What a cold migration or resize to this flavor does with the content of the server's persistent memory.",
    ),
    "vpmem:on_shelve": (
        ("discard", "export", "refuse"),
        "What offloading a shelved server does with the content of its persistent memory.",
    ),
}


def register() -> list[base.ExtraSpecValidator]:
    """Return the validators. Nova calls this (entry point group ``nova.api.extra_spec_validators``)."""
    return [
        base.ExtraSpecValidator(
            name=name,
            description=description,
            value={"type": str, "description": description, "enum": list(values)},
        )
        for name, (values, description) in _SPECS.items()
    ]
