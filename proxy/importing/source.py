"""A LiteLLM configuration while it is read: its values, with `os.environ/NAME` looked up, and what is said of them."""

import re
from collections.abc import Mapping
from typing import Any

from proxy.controlplane.document import Document
from proxy.controlplane.problems import Path
from proxy.importing.remarks import Kind, Remarks

FROM_ENVIRONMENT = "os.environ/"
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Source:
    def __init__(self, document: Document, environ: Mapping[str, str]) -> None:
        self.data: dict[str, Any] = document.data
        self.remarks = Remarks(document)
        own = {name: str(value) for name, value in self.section("environment_variables").items() if value is not None}
        self.environ = {**environ, **own}

    def section(self, name: str) -> dict[str, Any]:
        value = self.data.get(name)
        return value if isinstance(value, dict) else {}

    def dropped(self, path: Path, why: str) -> None:
        self.remarks.say(Kind.DROPPED, path, why)

    def changed(self, path: Path, how: str) -> None:
        self.remarks.say(Kind.CHANGED, path, how)

    def to_do(self, path: Path, what: str) -> None:
        self.remarks.say(Kind.TO_DO, path, what)

    def text(self, path: Path, value: object) -> str | None:
        """What is written or what the variable holds that is written instead; None, and it is said, if nothing is."""
        if value is None or value == "":
            return None
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str):
            self.dropped(path, "not a text: write it in quotes")
            return None
        if not value.startswith(FROM_ENVIRONMENT):
            return value.strip()
        name = value.removeprefix(FROM_ENVIRONMENT)
        found = self.environ.get(name)
        if not found:
            shown = name if VARIABLE.fullmatch(name) else "it names"
            self.dropped(path, f"the environment variable {shown} is not set here: set it for the import, too")
        return found or None

    def number(self, path: Path, value: object) -> float | None:
        """A number, 0.001 at least; None, and it is said, where it is none."""
        text = self.text(path, value)
        if text is None:
            return None
        try:
            number = float(text)
        except ValueError:
            number = 0.0
        if not 0.001 <= number < 1e9:  # nan is not, either
            self.dropped(path, "not a number from 0.001 to a thousand million")
            return None
        return number

    def whole(self, path: Path, value: object) -> int | None:
        number = self.number(path, value)
        return None if number is None else max(1, round(number))
