"""Names for what had none, or had one that ours may not have."""

import re
from collections.abc import Container

LONGEST = 64


def free_name(wanted: str, taken: Container[str]) -> str:
    """The nearest to `wanted` that a configuration may use and that is not taken."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", wanted.replace("*", "any"))
    base = re.sub(r"-+", "-", plain).strip("-._")[:LONGEST] or "any"
    name, number = base, 1
    while name in taken:
        number += 1
        ending = f"-{number}"
        name = base[: LONGEST - len(ending)] + ending
    return name
