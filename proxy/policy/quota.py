"""What an answer says of the quota of the key that drew it: how much is used, and when a refused key may call again.

Each vendor has its own fields: OpenAI `x-ratelimit-{limit,remaining,reset}-NAME` with resets such as `6m0s`, Anthropic
`anthropic-ratelimit-NAME-{limit,remaining,reset}` with RFC 3339 moments; and both `retry-after`, now and then in
milliseconds. Names are not listed here (`requests`, `tokens`, `input-tokens`, `project-tokens`, `tokens-minute` ...):
what has a limit and a remainder is a quota. One search tells most answers of other upstreams apart, for they have none.

The fields are an upstream's words, not to be trusted: what is no sane number is as good as absent, a wait is at most a
day, and nothing here raises.
Source: https://platform.openai.com/docs/guides/rate-limits, https://docs.anthropic.com/en/api/rate-limits,
RFC 9110 10.2.3. Azure sends resets as plain seconds, OpenRouter fields without NAME and resets as Unix time.
"""

import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache

LONGEST_WAIT_S = 86_400.0  # quotas of a day are the longest there are
_UNIX_TIME_FROM = 1e9  # a reset above it is a moment, in seconds, not a wait of thirty years
_UNIX_MS_FROM = 1e11

# All of them for a lower-cased copy: half the price of matches that ignore case. A longer value is nobody's.
_QUOTA = re.compile(rb"\r\n(?:x|anthropic)-ratelimit-([a-z0-9_-]{1,64}):[ \t]*([^\r \t]{1,64})[ \t]*(?=\r|$)")
_RETRY_AFTER = re.compile(rb"\r\nretry-after:([^\r]{1,64})(?=\r|$)")
_RETRY_AFTER_MS = re.compile(rb"\r\nretry-after-ms:([^\r]{1,64})(?=\r|$)")

_ZERO = re.compile(rb"0+")
_NUMBER = re.compile(rb"[0-9]+(?:\.[0-9]*)?")
_PART = re.compile(rb"(%b)(d|h|ms|m|us|\xc2\xb5s|ns|s)" % _NUMBER.pattern)  # as Go writes durations
_DURATION = re.compile(rb"(?:%b)+" % _PART.pattern)
_UNIT_S = {b"d": 86_400, b"h": 3600, b"m": 60, b"s": 1, b"ms": 1e-3, b"us": 1e-6, b"\xc2\xb5s": 1e-6, b"ns": 1e-9}


def used_share(fields: bytes) -> float | None:
    """How much of the scarcest quota is used, from 0 to 1; None where the answer does not say.

    `fields` are those of an answer's head, each with CRLF before it.
    """
    lower = fields.lower()
    if b"ratelimit-" not in lower:
        return None
    said = dict(_QUOTA.findall(lower))
    least = math.inf
    for name, limit in said.items():
        left = said.get(_remainder_of(name))
        if left is not None and left.isdigit() and limit.isdigit() and (most := int(limit)):
            share = int(left) / most
            if share < least:
                least = share
    return None if least == math.inf else max(0.0, 1 - least)


@lru_cache(maxsize=256)  # answers repeat few names
def _remainder_of(name: bytes) -> bytes:
    """What the remainder is called of the quota whose limit has this name; b"" where this is no limit's."""
    return name.replace(b"limit", b"remaining", 1) if b"limit" in name else b""


def wait_s(fields: bytes, wall_s: float) -> float | None:
    """How long the key that drew this 429 is to rest, in seconds from 0 to a day; None where the answer does not say.

    `retry-after-ms` goes before `retry-after`, as in the vendors' SDKs, and both before the latest reset of what is
    used up. `wall_s` is the Unix time, for moments; one that has passed is a wait of 0.
    """
    lower = fields.lower()
    if (found := _RETRY_AFTER_MS.search(lower)) and (milliseconds := _number(found[1].strip())) is not None:
        return min(milliseconds / 1000, LONGEST_WAIT_S)
    if found := _RETRY_AFTER.search(lower):
        value = found[1].strip()
        seconds = _number(value)
        if seconds is None:
            seconds = _until(value, wall_s)
        if seconds is not None:
            return min(seconds, LONGEST_WAIT_S)
    longest_s = max(_resets(lower, wall_s), default=None)
    return None if longest_s is None else min(longest_s, LONGEST_WAIT_S)


def _resets(lower: bytes, wall_s: float) -> Iterator[float]:
    """In how many seconds each quota that is used up is free again."""
    said = dict(_QUOTA.findall(lower))
    for name, value in said.items():
        if b"reset" in name and _ZERO.fullmatch(said.get(name.replace(b"reset", b"remaining", 1), b"")):
            seconds = _reset(value, wall_s)
            if seconds is not None:
                yield seconds


def _reset(value: bytes, wall_s: float) -> float | None:
    """The seconds that a duration, a number of seconds, a Unix time or an RFC 3339 moment stand for."""
    if _DURATION.fullmatch(value):
        return sum(float(count) * _UNIT_S[unit] for count, unit in _PART.findall(value))
    number = _number(value)
    if number is None:
        return _until(value, wall_s)
    if number < _UNIX_TIME_FROM:
        return number
    return max(0.0, (number / 1000 if number >= _UNIX_MS_FROM else number) - wall_s)


def _number(value: bytes) -> float | None:
    return float(value) if _NUMBER.fullmatch(value) else None


def _until(value: bytes, wall_s: float) -> float | None:
    """In how many seconds an RFC 3339 or HTTP date comes; 0 where it has passed. UTC where it names no zone."""
    text = value.decode("latin-1").upper()
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            moment = read(text)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            return max(0.0, moment.timestamp() - wall_s)
        except (ValueError, OverflowError):
            continue
    return None
