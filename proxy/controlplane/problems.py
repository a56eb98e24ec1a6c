"""What is wrong with a configuration, one line each: where it stands, what was found, what would be right."""

from dataclasses import dataclass

Path = tuple[str | int, ...]


def path_text(path: Path) -> str:
    """`upstreams.openai.keys[0].value`, on one line whatever a name contains."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{_printable(step)}" for step in path)
    return text.removeprefix(".")


def _printable(name: str) -> str:
    return (name if name.isprintable() else name.encode("unicode_escape").decode()) or '""'


@dataclass(frozen=True, slots=True)
class Problem:
    """`line` counts from 1 and is None where the file itself is the problem. `message` holds no secret."""

    path: Path
    line: int | None
    message: str
    file: str = "configuration"

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (place, path_text(self.path), self.message) if part)


class ConfigInvalid(Exception):
    """No settings came of it. `problems` holds all that was found, in the file's order."""

    def __init__(self, problems: tuple[Problem, ...], warnings: tuple[Problem, ...] = ()) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems
        self.warnings = warnings
