"""What an import has to say: where, and whether something is to be done, is otherwise than before, or is left out."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from proxy.controlplane.document import Document
from proxy.controlplane.problems import Path, path_text


class Kind(Enum):
    """`value` is the word for it; the order is the one in which an operator wants to read them."""

    DROPPED = "not converted"
    TO_DO = "to do"
    CHANGED = "otherwise"


@dataclass(frozen=True, slots=True)
class Remark:
    """`also`: on how many further places the same holds."""

    kind: Kind
    path: Path
    line: int
    text: str
    also: int = 0

    @property
    def place(self) -> str:
        """`model_list[0].litellm_params.temperature (and 2 more)`."""
        return path_text(self.path) + (f" (and {self.also} more)" if self.also else "")


class Remarks:
    """Collects them. What is said of the same field of several entries is said once, with their number."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._said: dict[object, Remark] = {}

    def say(self, kind: Kind, path: Path, text: str) -> None:
        path = tuple(map(_showable, path))
        same = (kind, path[-1] if path else "", text)
        known = self._said.get(same)
        if known is None:
            self._said[same] = Remark(kind, path, self._document.key_line(path) or 1, text)
        elif known.path != path:
            self._said[same] = Remark(kind, known.path, known.line, text, known.also + 1)

    def sorted(self) -> tuple[Remark, ...]:
        kinds = list(Kind)
        return tuple(sorted(self._said.values(), key=lambda remark: (kinds.index(remark.kind), remark.line)))


def of_kind(remarks: Iterable[Remark], kind: Kind) -> list[Remark]:
    return [remark for remark in remarks if remark.kind is kind]


def _showable(step: str | int) -> str | int:
    """A field's name, but not a secret whose blank was forgotten: `{api_key:sk-…}` is one long name."""
    if isinstance(step, int) or re.fullmatch(r"[A-Za-z0-9_*./ -]{1,48}", step):
        return step
    return "?"
