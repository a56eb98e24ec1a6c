import io
import logging
from collections.abc import Iterator

import pytest


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """A stream for a log; what the log adopted of the standard library's is given back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
