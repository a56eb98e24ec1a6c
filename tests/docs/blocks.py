"""What a page shows, as steps in its order: commands with what they print, files, snippets of Python.

A page is Markdown that people read, so that it says nothing to the tests but by its form:

- A `console` block has commands, each on a line that begins with `$ ` (carried on by a backslash, a quotation or a
  here-document). Lines after a command are what it prints, all of it; `…` in them stands for anything. A comment
  `# exits with 1` says that a command fails.
- A `yaml` block whose first line is `# NAME.yaml` is that file. It is written where the commands run, in the page's
  order.
- A `python` block is run.
- `<!-- scene` … `-->` holds commands that readers need not see: what the page takes for granted, as a console block
  would show it.
"""

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<kind>\w+)[^\n]*\n(?P<text>.*?)^(?P=indent)```|^<!-- scene\n(?P<hidden>.*?)^-->",
    re.MULTILINE | re.DOTALL,
)
_HERE_DOCUMENT = re.compile(r"<<-?\s*(['\"]?)(\w+)\1")
_EXITS = re.compile(r"# exits with (\d+)")
_NAMED = re.compile(r"# ([\w./-]+\.ya?ml)\b[^\n]*\n")


@dataclass(frozen=True, slots=True)
class Block:
    kind: str  # console, yaml, python, …; `console` for a scene, too
    text: str
    line: int  # of the page, where its text begins

    @property
    def file_name(self) -> str | None:
        """The file that a YAML block is, if its first line says so."""
        named = _NAMED.match(self.text) if self.kind == "yaml" else None
        return named and named[1]


@dataclass(frozen=True, slots=True)
class Command:
    text: str
    shown: str  # what the page says that it prints
    line: int

    @property
    def exit_status(self) -> int:
        said = _EXITS.search(self.text)
        return int(said[1]) if said else 0


def blocks(page: Path) -> list[Block]:
    text, found = page.read_text(), []
    for match in _BLOCK.finditer(text):
        kind, inside = ("console", "hidden") if match["hidden"] is not None else (match["kind"], "text")
        line = text.count("\n", 0, match.start(inside)) + 1
        found.append(Block(kind, textwrap.dedent(match[inside]), line))
    return found


def commands(block: Block) -> list[Command]:
    lines = list(enumerate(block.text.splitlines(), block.line))
    found = []
    while lines:
        number, first = lines.pop(0)
        if not first.startswith("$ "):
            raise ValueError(
                f"line {number}: neither a command, which begins with '$ ', nor what one prints: {first!r}"
            )
        text = [first.removeprefix("$ ")]
        while lines and (text[-1].endswith("\\") or _is_open(text)):
            text.append(lines.pop(0)[1])
        shown = []
        while lines and not lines[0][1].startswith("$ "):
            shown.append(lines.pop(0)[1])
        found.append(Command("\n".join(text), "\n".join(shown), number))
    return found


def _is_open(text: list[str]) -> bool:
    """Whether a here-document has begun and not ended; so does a quoted text."""
    begun = next((match for line in text if (match := _HERE_DOCUMENT.search(line))), None)
    if begun is not None:
        return begun[2] not in (line.strip() for line in text[1:])
    return "\n".join(text).count("'") % 2 == 1
