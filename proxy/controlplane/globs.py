"""Names by pattern: `gpt-*` and the like, as routes and clients have them."""

import re
from collections.abc import Iterable
from fnmatch import translate


def compiled(globs: Iterable[str]) -> re.Pattern[str]:
    """What matches a name that any of the globs does."""
    return re.compile("|".join(translate(glob) for glob in globs))
