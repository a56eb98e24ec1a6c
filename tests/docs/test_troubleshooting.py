"""Every error a caller can get is in docs/troubleshooting.md, and what it quotes is what the program says."""

import errno
import os
import re

import pytest

from proxy.model import errors
from proxy.model.errors import ProxyError
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs/troubleshooting.md").read_text()
SOURCES = "\n".join(path.read_text() for path in sorted((ROOT / "proxy").rglob("*.py")))
CALLERS, OTHERS = PAGE.split("## It does not start")
ROWS = re.findall(r"^\| (?:`(\w+)`)? ?\| (\d{3})? ?\| `(.+?)`", CALLERS, re.MULTILINE)
MESSAGES = [message for _, _, message in ROWS]
MESSAGES += [
    message for message in re.findall(r"^\| `([^`]+)`(?: …)? \| [^0-9]", OTHERS, re.MULTILINE) if " " in message
]
EVENTS = re.findall(r"^\| `([a-z]+_[a-z_]+)`", PAGE.split("## In operation")[1], re.MULTILINE)
# In a message, what may be any value, as the examples have it: quoted, paths and addresses, numbers, names.
VALUES = re.compile(
    r"'[^']*'|\S*[\d/]\S*|\S*\.\w\S*|\.\.\.|: |\. |\b[A-Z_]{8,}\b|\(.*?\)"
    r"|(?<=Upstream )openai|\bopenai\.|(?<=pool )chat\b"
)


def said() -> str:
    """All texts in the program, those of the system beneath it, and what tests hold of the configuration's errors."""
    joined = re.sub(r'"\s*\n\s*f?"', "", SOURCES)  # a literal on several lines
    system = "\n".join(os.strerror(number).lower() for number in errno.errorcode)
    golden = (path.read_text() for path in sorted((ROOT / "tests/golden/config_errors").glob("*.expected")))
    return re.sub(r"\{[^{}\"]*\}", "\0", joined) + system + "\n".join(golden)


SAID = said()


def unsaid(message: str) -> list[str]:
    """The pieces of a message, between its values, that are nowhere in the program."""
    pieces = [piece.strip(" :.") for piece in VALUES.split(message)]
    telling = [piece for piece in pieces if len(piece) > 7]
    return [piece for piece in telling if piece not in SAID] if telling else [message]


def test_every_code_has_a_row_with_its_status() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ProxyError)]
    ours = {(kind.code, str(kind.status)) for kind in kinds if kind.code}
    by_hand = {(code, "400") for code in re.findall(r'BadRequest\(.*code="(\w+)"\)', SOURCES)}
    assert ours | by_hand == {(code, status) for code, status, _ in ROWS if code}


@pytest.mark.parametrize("message", MESSAGES)
def test_message_is_quoted_as_it_is_said(message: str) -> None:
    assert unsaid(message) == []


@pytest.mark.parametrize("message", ["Upstream openai did not send a tasty answer.", "No route leads anywhere."])
def test_message_that_nobody_says_is_noticed(message: str) -> None:
    assert unsaid(message)


@pytest.mark.parametrize("event", EVENTS)
def test_events_of_the_log_are_logged(event: str) -> None:
    assert f'"{event}"' in SOURCES or re.search(rf"\b{event}: ", SOURCES)


def test_what_a_newcomer_may_meet_has_an_entry() -> None:
    """The quick start names it with a hint; its page has more."""
    quick = (ROOT / "docs/quickstart.md").read_text().split("| you see | do |")[1]
    met = re.findall(r"`([^`]+)`", "\n".join(re.findall(r"^\| (.*?) \|", quick, re.MULTILINE)))
    assert len(met) > 10
    assert [message for message in met if message not in PAGE] == []
