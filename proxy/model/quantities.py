"""Durations, sizes and names as the configuration writes them: a unit always, so that no number is ever misread.

A bare `30` is refused rather than guessed at: half of all configurations mean seconds by it, the other half
milliseconds. Every refusal says what would have been right.
"""

import math
import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
DURATION_PATTERN = r"^[0-9]{1,9}(\.[0-9]{1,3})?(ms|s|m|h|d)$"
SIZE_PATTERN = r"^[0-9]{1,9}(B|KiB|MiB|GiB)$"
# What metrics carry as a label and the admin API as a piece of a path.
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

_NUMBER_AND_UNIT = re.compile(r"\s*([0-9]{1,9}(?:\.[0-9]{1,3})?)\s*([A-Za-z]*)\s*")
_MIXED = re.compile(r"(?=.)(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,6})s)?")
_MEANT_UNIT = {"sec": "s", "secs": "s", "second": "s", "seconds": "s", "min": "m", "mins": "m", "minute": "m"}
_MEANT_UNIT |= {"minutes": "m", "hour": "h", "hours": "h", "day": "d", "days": "d", "msec": "ms", "millis": "ms"}
_MEANT_SIZE = {"b": "B", "k": "KiB", "kb": "KiB", "kib": "KiB", "m": "MiB", "mb": "MiB", "mib": "MiB"}
_MEANT_SIZE |= {"g": "GiB", "gb": "GiB", "gib": "GiB"}


def shown(value: object) -> str:
    """A value as an error names it: short, text in quotes, and by its kind where it is not a scalar."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
        case str():
            return repr(value if len(value) <= 40 else value[:37] + "...")
        case dict():
            return "a mapping"
        case _:
            return "a list"


def _number(value: object) -> float | None:
    return None if isinstance(value, bool) or not isinstance(value, int | float) else value


def parse_duration(value: object) -> float:
    """Seconds from `250ms`, `30s`, `5m`, `2h` or `1d`."""
    if isinstance(value, str) and re.fullmatch(DURATION_PATTERN, value):
        number, unit = re.fullmatch(r"([0-9.]+)([a-z]+)", value).groups()  # type: ignore[union-attr]
        return float(number) * SECONDS[unit]
    bare = _number(value)
    if bare is not None and 0 <= bare < 1e9:
        raise ValueError(f"{value} is not a duration: write {value}s, 250ms or 2m")
    parts = _NUMBER_AND_UNIT.fullmatch(value) if isinstance(value, str) else None
    unit = _MEANT_UNIT.get(parts[2].lower(), parts[2].lower() or "s") if parts else ""
    if parts and unit in SECONDS:
        raise ValueError(f"{shown(value)} is not a duration: write {parts[1]}{unit}")
    mixed = _MIXED.fullmatch(value) if isinstance(value, str) else None
    hours, minutes, seconds = (int(part or 0) for part in mixed.groups()) if mixed else (0, 0, 0)
    right = duration_text(hours * 3600 + minutes * 60 + seconds) if mixed else "30s, 250ms or 2m"
    raise ValueError(f"{shown(value)} is not a duration: write {right}")


def parse_wait(value: object) -> float:
    """A duration that has to last: a wait of nothing would fail every request."""
    seconds = parse_duration(value)
    if seconds == 0:
        raise ValueError(f"{value} is too short: write more than 0s")
    return seconds


def parse_percent(value: object) -> int:
    """`5%`: hundredths of a whole."""
    found = re.fullmatch(r"([0-9]{1,3})%", value) if isinstance(value, str) else None
    if found is None or int(found[1]) > 100:
        raise ValueError(f"{shown(value)} is no share: write 5%, from 0% to 100%")
    return int(found[1])


def parse_limit(value: object) -> float | None:
    """A wait, or `none` for no limit."""
    if value == "none":
        return None
    if value is None or value in ("never", "off", "unlimited", "None", "null"):
        raise ValueError(f"{shown(value)} is not a duration: write 30s, or none for no limit")
    return parse_wait(value)


def parse_size(value: object) -> int:
    """Bytes from `512B`, `64KiB`, `20MiB` or `1GiB`."""
    if isinstance(value, str) and re.fullmatch(SIZE_PATTERN, value):
        number, unit = re.fullmatch(r"([0-9]+)([A-Za-z]+)", value).groups()  # type: ignore[union-attr]
        return int(number) * BYTES[unit]
    bare = _number(value)
    if isinstance(bare, int) and bare >= 0:
        raise ValueError(f"{value} is not a size: write {size_text(bare)}, or another number with B, KiB, MiB or GiB")
    parts = _NUMBER_AND_UNIT.fullmatch(value) if isinstance(value, str) else None
    unit = _MEANT_SIZE.get(parts[2].lower(), "") if parts else ""
    if parts and unit and "." not in parts[1]:
        raise ValueError(f"{shown(value)} is not a size: write {parts[1]}{unit}")
    raise ValueError(f"{shown(value)} is not a size: write 64KiB, 20MiB or 1GiB")


def parse_moment(value: object) -> float:
    """Seconds since 1970 from `2027-01-31` (its beginning, in UTC) or `2027-01-31T18:00:00+02:00`."""
    text = value if isinstance(value, str) else ""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{shown(value)} is no moment: write 2027-01-31, or 2027-01-31T18:00:00Z") from None
    if moment.tzinfo is None:
        if len(text) > len("2027-01-31"):
            raise ValueError(f"{shown(value)} has no time zone: write {text}Z for UTC, or an offset such as +02:00")
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()


def parse_until(value: object, now_s: float) -> float:
    """A moment, or how long it is until then, to whole seconds: `7d`."""
    if isinstance(value, str) and re.fullmatch(DURATION_PATTERN, value):
        return float(math.ceil(now_s + parse_wait(value)))
    try:
        return parse_moment(value)
    except ValueError as error:
        raise ValueError(f"{error}, or 7d from now") from None


def moment_text(seconds: float) -> str:
    """A text that `parse_moment` reads as this many seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def parse_name(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(NAME_PATTERN, value):
        raise ValueError("not a name: write up to 64 letters, digits, '.', '_' or '-', a letter or digit first")
    return value


def duration_text(seconds: float | None) -> str:
    """The shortest text that `parse_duration` reads as this many seconds."""
    if seconds is None:
        return "none"
    for unit in ("d", "h", "m", "s"):
        if seconds >= SECONDS[unit] and seconds % SECONDS[unit] == 0:
            return f"{seconds / SECONDS[unit]:.0f}{unit}"
    number, unit = (seconds * 1000, "ms") if 0 < seconds < 1e6 else (seconds, "s")  # nine digits either way
    return f"{number:.3f}".rstrip("0").rstrip(".") + unit if seconds else "0s"


def size_text(size: int) -> str:
    """The shortest text that `parse_size` reads as this many bytes."""
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % BYTES[unit] == 0:
            return f"{size // BYTES[unit]}{unit}"
    return f"{size}B"


_DURATION_SCHEMA: dict[str, Any] = {"type": "string", "pattern": DURATION_PATTERN, "examples": ["250ms", "30s", "5m"]}
_LIMIT_SCHEMA = _DURATION_SCHEMA | {"pattern": f"{DURATION_PATTERN}|^none$", "examples": ["30s", "5m", "none"]}
_SIZE_SCHEMA: dict[str, Any] = {"type": "string", "pattern": SIZE_PATTERN, "examples": ["64KiB", "20MiB", "1GiB"]}
_AS_DURATION = PlainSerializer(duration_text, return_type=str, when_used="json")
_AS_SIZE = PlainSerializer(size_text, return_type=str, when_used="json")

Duration = Annotated[float, BeforeValidator(parse_duration), _AS_DURATION, WithJsonSchema(_DURATION_SCHEMA)]
"""Seconds, 0 allowed."""
Wait = Annotated[float, BeforeValidator(parse_wait), _AS_DURATION, WithJsonSchema(_DURATION_SCHEMA)]
"""Seconds, more than 0."""
Limit = Annotated[float | None, BeforeValidator(parse_limit), _AS_DURATION, WithJsonSchema(_LIMIT_SCHEMA)]
"""Seconds, more than 0, or None where the configuration says `none`."""
Percent = Annotated[
    int,
    BeforeValidator(parse_percent),
    PlainSerializer(lambda percent: f"{percent}%", return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": "^[0-9]{1,3}%$"}),
]
"""Hundredths, from 0 to 100."""
Moment = Annotated[
    float,
    BeforeValidator(parse_moment),
    PlainSerializer(moment_text, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "examples": ["2027-01-31", "2027-01-31T18:00:00Z"]}),
]
"""Seconds since 1970."""
Size = Annotated[int, BeforeValidator(parse_size), _AS_SIZE, WithJsonSchema(_SIZE_SCHEMA)]
"""Bytes."""
Name = Annotated[str, BeforeValidator(parse_name), WithJsonSchema({"type": "string", "pattern": NAME_PATTERN})]
Count = Annotated[int, Field(strict=True)]
"""A whole number; neither `true` nor `"3"` nor `3.0` passes for one."""
Switch = Annotated[bool, Field(strict=True)]
