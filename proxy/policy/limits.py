"""How much a client, or a provider's key, may use: requests and tokens a minute, and requests at once.

Rates are token buckets that hold a minute's worth and refill all the time. That is what callers know from the vendors:
OpenAI's documentation shows `limit: 60`, `remaining: 59`, `reset: 1s`, Anthropic's speaks of capacity "continuously
replenished up to your maximum". So what `remaining` says may be used at once, and who was idle may spend a whole minute
in a burst; over any span it is at most the limit and what flowed in meanwhile, so twice the limit in the worst minute.
A smaller bucket would smooth better but refuse while `remaining` is high, and no long prompt would ever fit in it.
What must not come at once is for `concurrent` to hold. Fixed windows would allow the same twofold minute every minute.

A bucket is kept as one number, the moment when it is full again: the generic cell rate algorithm, as virtual scheduling
has it. Nothing has to be refilled, and waits are differences of moments.
Source: ITU-T I.371 (GCRA), https://platform.openai.com/docs/guides/rate-limits,
https://docs.anthropic.com/en/api/rate-limits.

What a request uses is known at its end. An estimate is taken when it begins and corrected then, which may leave a debt.
"""

from dataclasses import dataclass
from math import ceil, inf
from typing import Literal

Name = Literal["requests", "tokens", "concurrent"]

CONCURRENT_RETRY_S = 1.0  # nobody knows when a stream ends; the vendors' SDKs wait about as long by themselves
BYTES_A_TOKEN = 4  # OpenAI's rule of thumb for English; JSON around it and other scripts even out
MINUTE_S = 60.0
ROUNDING_S = 1e-6  # of moments as floats: who waited for as long as was said is not sent away for the last bit


class NoneUnderWay(RuntimeError):
    """More requests ended than began: a bug in who counts them."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that may not go now: which limit says so (of several the one that lasts longest), and for how long."""

    limit: Name
    most: int  # the limit's number
    retry_after_s: float


def estimated_tokens(body_bytes: int) -> int:
    """What a request may use, before its usage is known: a token for each begun four bytes of its body.

    Good for holding a rate over many requests of prose, where it errs by some tens of percent. It knows nothing of the
    answer's length, counts pictures and sound by their base64, which is far too much, and what a prompt refers to by
    name not at all. So it is only ever a stake, which the answer's usage corrects.
    """
    return -(-body_bytes // BYTES_A_TOKEN)


class Limit:
    """One bucket: so many a minute, and so many at once. Full when new. Raises ValueError for less than 1 a minute.

    Costs are never negative, and the clock never runs back.
    """

    __slots__ = ("_each_s", "_full_at_s", "per_minute")
    per_minute: int
    _each_s: float  # in which one flows in

    def __init__(self, per_minute: int) -> None:
        _check(per_minute=per_minute)
        self.set_rate(per_minute)
        self._full_at_s = -inf

    def wait_s(self, cost: int, now_s: float) -> float:
        """In how many seconds `cost` may be taken if nobody else comes; 0.0: now.

        More than the bucket holds may go when it is full, and leaves a debt: nothing is refused for good.
        """
        missing_s = self._full_at_s - now_s  # below 0: full for so long, of which no wait comes
        needed_s = cost * self._each_s
        wait_s = missing_s + needed_s - MINUTE_S if needed_s < MINUTE_S else missing_s
        return wait_s if wait_s > ROUNDING_S else 0.0

    def spend(self, cost: int, now_s: float) -> bool:
        """Take so many if they are there, that is, if there is nothing to wait for. Were they?"""
        full_at_s, needed_s = self._full_at_s, cost * self._each_s
        if full_at_s < now_s:
            full_at_s = now_s
        missing_s = full_at_s - now_s
        if missing_s + needed_s > MINUTE_S + ROUNDING_S and missing_s > ROUNDING_S:
            return False
        self._full_at_s = full_at_s + needed_s
        return True

    def take(self, cost: int, now_s: float) -> None:
        """Use so many, whether they are there or not: what is missing is a debt that the next ones wait for."""
        full_at_s = self._full_at_s
        if full_at_s < now_s:
            full_at_s = now_s
        self._full_at_s = full_at_s + cost * self._each_s

    def give_back(self, cost: int, now_s: float) -> None:
        """So many of what was taken were not used. The bucket never gets more than full.

        What flowed in since is kept, so a late correction may allow a burst; all in all it is no more than the rate.
        """
        if self._full_at_s > now_s:
            self._full_at_s -= cost * self._each_s

    def told(self, now_s: float) -> tuple[int, int, bytes]:
        """The rate, what remains of it, and when the bucket is full again, as fields of a head say it."""
        reset_s = self._full_at_s - now_s
        if reset_s <= 0:
            return self.per_minute, self.per_minute, b"0s"
        left = int((MINUTE_S - reset_s + ROUNDING_S) / self._each_s)
        if left < 0:
            left = 0
        elif left > self.per_minute:
            left = self.per_minute
        return self.per_minute, left, duration(reset_s)

    def remaining(self, now_s: float) -> int:
        """How many may be taken now; 0 in debt."""
        return self.told(now_s)[1]

    def reset_s(self, now_s: float) -> float:
        """In how many seconds the bucket is full again; more than 60 in debt."""
        return max(0.0, self._full_at_s - now_s)

    def reconfigured(self, per_minute: int, now_s: float) -> None:
        """Another rate from now on. What was used stays used, but a smaller rate never makes a debt of it."""
        _check(per_minute=per_minute)
        missing_s, used = self.reset_s(now_s), self.reset_s(now_s) / self._each_s
        self.set_rate(per_minute)
        self._full_at_s = now_s + min(used * self._each_s, max(missing_s, MINUTE_S))

    def set_rate(self, per_minute: int) -> None:
        """Another rate from now on. When it is full was worked out by it before."""
        self.per_minute = per_minute
        self._each_s = MINUTE_S / per_minute


class Limits:
    """The limits of one client, or of one key of an upstream, and what is used of them. None: not limited.

    One for each name, whatever the configuration is: requests that began under an old one end here as well.
    Raises ValueError for a limit below 1.
    """

    __slots__ = ("concurrent", "requests", "tokens", "under_way")
    elsewhere = 0  # under way in other processes that share these limits

    def __init__(
        self,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        concurrent: int | None = None,
    ) -> None:
        _check(requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute, concurrent=concurrent)
        self.requests = None if requests_per_minute is None else Limit(requests_per_minute)
        self.tokens = None if tokens_per_minute is None else Limit(tokens_per_minute)
        self.concurrent = concurrent
        self.under_way = 0  # counted without a limit too, for a reload may bring one

    @property
    def in_all(self) -> int:
        """Requests under way, wherever."""
        return self.under_way + self.elsewhere

    def has(self, limit: Name) -> bool:
        """Is there such a limit?"""
        return {"requests": self.requests, "tokens": self.tokens, "concurrent": self.concurrent}[limit] is not None

    def refusal(self, tokens: int, now_s: float) -> Refused | None:
        """Why a request of so many tokens may not begin now; None: it may. Asking costs nothing."""
        limit: Name | None = None
        most, longest_s = 0, 0.0
        if self.concurrent is not None and self.under_way + self.elsewhere >= self.concurrent:
            limit, most, longest_s = "concurrent", self.concurrent, CONCURRENT_RETRY_S
        if self.requests is not None and (wait_s := self.requests.wait_s(1, now_s)) > longest_s:
            limit, most, longest_s = "requests", self.requests.per_minute, wait_s
        if self.tokens is not None and (wait_s := self.tokens.wait_s(tokens, now_s)) > longest_s:
            limit, most, longest_s = "tokens", self.tokens.per_minute, wait_s
        return None if limit is None else Refused(limit, most, longest_s)

    def begin(self, tokens: int, now_s: float) -> Refused | None:
        """A request of so many tokens is under way, until `ended`; or why it may not begin now, and nothing is used."""
        concurrent, requests, rate = self.concurrent, self.requests, self.tokens
        if concurrent is not None and self.under_way + self.elsewhere >= concurrent:
            return self.refusal(tokens, now_s)
        if requests is not None and not requests.spend(1, now_s):
            return self.refusal(tokens, now_s)
        if rate is not None and not rate.spend(tokens, now_s):
            if requests is not None:
                requests.give_back(1, now_s)
            return self.refusal(tokens, now_s)
        self.under_way += 1
        return None

    def undo(self, tokens: int, now_s: float) -> None:
        """It came to nothing: as if it had never begun."""
        self.ended(tokens, 0, now_s)
        if self.requests is not None:
            self.requests.give_back(1, now_s)

    def began(self, tokens: int, now_s: float) -> None:
        """A request is under way, until `ended`, whether it may be or not."""
        self.under_way += 1
        if self.requests is not None:
            self.requests.take(1, now_s)
        if self.tokens is not None:
            self.tokens.take(tokens, now_s)

    def ended(self, estimated: int, used: int | None, now_s: float) -> None:
        """One is over, to its last byte, that began with an estimate and used so many tokens; None: nobody knows.

        Raises NoneUnderWay, and changes nothing, if none was under way.
        """
        if self.under_way == 0:
            raise NoneUnderWay("a request ended that never began")
        self.under_way -= 1
        rate = self.tokens
        if rate is None or used is None:
            return
        if used > estimated:
            rate.take(used - estimated, now_s)
        else:
            rate.give_back(estimated - used, now_s)

    def headers(self, now_s: float) -> bytes:
        """What is left, as OpenAI's answers say it: fields of a head, each with CRLF before it; none without a rate."""
        requests, tokens = self.requests, self.tokens
        if requests is not None and tokens is not None:
            return _BOTH % (requests.told(now_s) + tokens.told(now_s))
        if requests is not None:
            return _OF_REQUESTS % requests.told(now_s)
        return b"" if tokens is None else _OF_TOKENS % tokens.told(now_s)

    def reconfigured(
        self, requests_per_minute: int | None, tokens_per_minute: int | None, concurrent: int | None, now_s: float
    ) -> None:
        """Other limits from now on; what was used stays so. Raises ValueError, and changes nothing, for one below 1."""
        _check(requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute, concurrent=concurrent)
        self.requests = self._limit(self.requests, requests_per_minute, now_s, 0)
        self.tokens = self._limit(self.tokens, tokens_per_minute, now_s, 1)
        self.concurrent = concurrent

    def _limit(self, limit: Limit | None, per_minute: int | None, now_s: float, place: int) -> Limit | None:
        if per_minute is None:
            return None
        if limit is None:
            return Limit(per_minute)
        limit.reconfigured(per_minute, now_s)
        return limit


def _check(**limits: int | None) -> None:
    for name, number in limits.items():
        if number is not None and number < 1:
            raise ValueError(f"{name} is {number}, which lets nothing through: at least 1, or none at all for no limit")


_OF_REQUESTS, _OF_TOKENS = (
    b"\r\nx-ratelimit-limit-%b: %%d\r\nx-ratelimit-remaining-%b: %%d\r\nx-ratelimit-reset-%b: %%b" % ((name,) * 3)
    for name in (b"requests", b"tokens")
)
_BOTH = _OF_REQUESTS + _OF_TOKENS


def duration(seconds: float) -> bytes:
    """A time as OpenAI, and Go, write it: `0s`, `120ms`, `1s`, `7.5s`, `6m0s`, `1h0m0.25s`; rounded up to whole ms."""
    milliseconds = ceil(seconds * 1000 - ROUNDING_S * 1000)
    if 0 < milliseconds < 1000:
        return b"%dms" % milliseconds
    minutes, milliseconds = divmod(milliseconds, 60_000)
    whole, thousandths = divmod(milliseconds, 1000)
    text = b"%d" % whole if not thousandths else (b"%d.%03d" % (whole, thousandths)).rstrip(b"0")
    if not minutes:
        return b"%bs" % text
    return b"%dm%bs" % (minutes, text) if minutes < 60 else b"%dh%dm%bs" % (*divmod(minutes, 60), text)
