"""What an operator says about a canary: which pools, how fast, and on what evidence.

Weights are percent, as in Argo Rollouts and Flagger. A warm-up, an SLO and a bake are only where they are written.
"""

import re
from base64 import b64decode
from itertools import pairwise
from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, Field, model_validator

from proxy.model.quantities import Count, Duration, Name, Switch, Wait
from proxy.model.record import Record, SecretText
from proxy.model.secret import Secret

Share = Annotated[float, Field(strict=True, ge=0, le=0.5)]
Chance = Annotated[float, Field(strict=True, ge=1e-9, le=0.5)]
Weight = Annotated[float, Field(strict=True, ge=0, le=100)]
Latency = Literal["ttft", "time_per_chunk"]
EventName = Literal[
    "began",  # the warm-up, or the first step
    "stepped",
    "promoted",
    "succeeded",
    "rolled_back",
    "failed",  # after a rollback: the canary's last request has ended
    "holding",
    "went_on",
    "paused",
    "resumed",
    "inconclusive",
    "aborted",
    "retried",
    "weight_set",
    "evaluated",  # bands: one look, the report of the allocation
    "alert",  # bands: above all of them
    "slo_alarm",  # promoted, and worse than the SLO
]
EVENTS: tuple[EventName, ...] = get_args(EventName)


class WarmUp(Record):
    """The first requests of a canary, whose latency is not judged: caches are cold. Their errors are."""

    min_requests: Count = Field(200, ge=0, description="So many of the canary's, at least,")
    duration_s: Duration = Field("5m", alias="duration", validate_default=True, description="and so long, at least.")
    max_duration_s: Duration = Field(
        "30m", alias="max_duration", validate_default=True, description="After so long it is over in any case."
    )
    weight: Annotated[float, Field(strict=True, ge=0.01, le=99)] = Field(
        1, description="The canary's share meanwhile, in percent."
    )

    @model_validator(mode="after")
    def _has_an_end(self) -> Self:
        if self.max_duration_s < self.duration_s:
            raise ValueError("max_duration is shorter than duration: write at least as much")
        return self


class Pause(Record):
    """A time at the weight before it."""

    duration_s: Wait | None = Field(None, alias="duration", description="How long. Absent: until it is resumed.")


class Step(Record):
    """A weight, or a pause."""

    set_weight: Weight | None = Field(None, description="The canary's share from now on, in percent.")
    pause: Pause | None = Field(None, description="`{}` waits until it is resumed, `{duration: 10m}` for a time.")

    @model_validator(mode="after")
    def _is_one_of_two(self) -> Self:
        if (self.set_weight is None) == (self.pause is None):
            raise ValueError("a step is one of two: write set_weight: 25, or pause: {duration: 10m}")
        return self


class MinSamples(Record):
    """What must have been seen of an arm before the next step."""

    canary: Count = Field(50, ge=0, description="Requests.")
    baseline: Count = Field(200, ge=0, description="Requests.")


class Metric(Record):
    """Something that the arms are compared by, and how much worse the canary may be."""

    name: Literal["ttft", "time_per_chunk", "errors", "stalls"] = Field(
        description="ttft: until the first byte. time_per_chunk: between the events of a stream."
    )
    allowed_increase: Annotated[float, Field(strict=True, ge=1, le=10)] | None = Field(
        None, description="Of a latency: a factor such as 1.10, which is the default."
    )
    allowed_delta: Share | None = Field(
        None, description="Of errors or stalls: a difference of shares; by default 0.01."
    )
    max_gap_s: Wait | None = Field(
        None, alias="max_gap", description="Of stalls: a stream that is silent for longer; 15s."
    )

    @model_validator(mode="after")
    def _has_what_is_its_own(self) -> Self:
        latency = self.name in get_args(Latency)
        if latency and self.allowed_delta is not None:
            raise ValueError(f"{self.name} is a latency: write allowed_increase, a factor such as 1.10")
        if not latency and self.allowed_increase is not None:
            raise ValueError(f"{self.name} is a share of requests: write allowed_delta, such as 0.01")
        if self.name != "stalls" and self.max_gap_s is not None:
            raise ValueError("max_gap belongs to stalls: remove it here")
        return self


class Band(Record):
    """A range of the mean latency."""

    below_s: Wait = Field(alias="below", description="It ends here; the band before it, or 0, is where it begins.")
    change: Annotated[float, Field(strict=True, ge=-100, le=100)] = Field(
        description="What is added to the weight, in points of percent."
    )


class Analysis(Record):
    """How the canary is judged."""

    method: Literal["evidence", "bands", "none"] | None = Field(
        None,
        description="evidence: a bet on the arms' labels, whose error is bounded however often one looks. bands: the "
        "rolling mean. none: steps go on by time alone. Absent: evidence where there are steps.",
    )
    alpha: Chance = Field(0.01, description="How likely a canary that is no worse may be rolled back at most.")
    alpha_advance: Chance = Field(0.05, description="How likely a canary that is worse than tolerated may step up.")
    interval_s: Wait | None = Field(None, alias="interval", description="Between two looks; 5s, and 5m for bands.")
    min_samples: MinSamples = Field(default_factory=MinSamples, description="Before a step, at least.")
    min_step_s: Duration | None = Field(
        None, alias="min_step_duration", description="A step lasts so long, at least: 5m."
    )
    max_step_s: Wait = Field(
        "12h",
        alias="max_step_duration",
        validate_default=True,
        description="Then, if nothing was proved, see next.",
    )
    on_inconclusive: Literal["pause", "rollback"] = Field("pause", description="What then is done.")
    metrics: tuple[Metric, ...] = Field(
        ({"name": "ttft"}, {"name": "time_per_chunk"}, {"name": "errors"}, {"name": "stalls", "allowed_delta": 0.005}),
        validate_default=True,
        min_length=1,
        description="What the arms are compared by; each at most once.",
    )
    # Of bands alone.
    window_s: Wait | None = Field(None, alias="window", description="Bands: what the mean is taken over; 5m.")
    metric: Latency | None = Field(None, description="Bands: of which latency; ttft.")
    initial: Weight | None = Field(None, description="Bands: the weight to begin with, in percent; 10.")
    min: Weight | None = Field(None, description="Bands: the lowest; 1.")
    max: Weight | None = Field(None, description="Bands: the highest; 100.")
    bands: tuple[Band, ...] = Field((), description="Bands: the first that the mean lies below counts.")
    otherwise: Literal["alert", "rollback"] | None = Field(None, description="Bands: above all of them; alert.")

    @model_validator(mode="after")
    def _fits_its_method(self) -> Self:
        of_bands = ("window_s", "metric", "initial", "min", "max", "bands", "otherwise")
        if self.method != "bands":
            for name in of_bands:
                if getattr(self, name):
                    raise ValueError(f"{name.removesuffix('_s')} is for method: bands: remove it, or set the method")
            return self
        if not self.bands:
            raise ValueError("bands are missing: write bands: [{below: 500ms, change: 10}]")
        for before, after in pairwise(self.bands):
            if after.below_s <= before.below_s:
                raise ValueError("bands: each must end above the one before it: put them in order")
        least, most = (default if value is None else value for value, default in ((self.min, 1), (self.max, 100)))
        if not least <= (10 if self.initial is None else self.initial) <= most:
            raise ValueError("initial is not within min and max: write one that is")
        return self

    @model_validator(mode="after")
    def _is_in_order(self) -> Self:
        if self.min_step_s is not None and self.max_step_s < self.min_step_s:
            raise ValueError("max_step_duration is shorter than min_step_duration: write at least as much")
        names = [metric.name for metric in self.metrics]
        if len(set(names)) < len(names):
            raise ValueError("metrics: one is there twice: leave one")
        return self


class Slo(Record):
    """What both arms are held to, whichever of them is at fault. One of the quantiles at most."""

    ttft_p50_s: Wait | None = Field(None, alias="ttft_p50", description="Half of the first bytes come by then.")
    ttft_p90_s: Wait | None = Field(None, alias="ttft_p90", description="90 of 100 do.")
    ttft_p95_s: Wait | None = Field(None, alias="ttft_p95", description="95 of 100 do.")
    ttft_p99_s: Wait | None = Field(None, alias="ttft_p99", description="99 of 100 do.")
    error_rate: Annotated[float, Field(strict=True, ge=0.0001, le=0.5)] | None = Field(
        None, description="Such a share of requests may fail at most."
    )

    @property
    def ttft(self) -> tuple[float, float] | None:
        """The share of first bytes that may come later, and than what."""
        for percent in (50, 90, 95, 99):
            limit_s = getattr(self, f"ttft_p{percent}_s")
            if limit_s is not None:
                return 1 - percent / 100, limit_s
        return None

    @model_validator(mode="after")
    def _has_one_quantile(self) -> Self:
        if sum(getattr(self, f"ttft_p{percent}_s") is not None for percent in (50, 90, 95, 99)) > 1:
            raise ValueError("several quantiles of ttft: leave one")
        return self


class Bake(Record):
    """After the promotion, held to the SLO. An alarm is an event: there is no arm left to compare with."""

    duration_s: Wait = Field(alias="duration", description="How long.")


def _url(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s/]+(/\S*)?", value):
        raise ValueError("not a URL: write https://host/path")
    return value


_SIGNING = "whsec_"


def signing_key(secret: str) -> bytes:
    """What messages are signed with. Raises ValueError, which quotes nothing of it."""
    prefix, key = secret[: len(_SIGNING)], secret[len(_SIGNING) :]
    try:
        found = b64decode(key, validate=True)
    except ValueError:
        found = b""
    if prefix != _SIGNING or not 24 <= len(found) <= 64:  # as Standard Webhooks asks
        raise ValueError("not whsec_ and 24 to 64 bytes in base64: make one with echo whsec_$(openssl rand -base64 32)")
    return found


def _signing(secret: Secret) -> Secret:
    signing_key(secret.reveal())
    return secret


class Webhook(Record):
    """Whom to tell of events, with a POST as https://www.standardwebhooks.com has it."""

    url: Annotated[str, AfterValidator(_url)] = Field(description="Where to.")
    events: tuple[EventName, ...] = Field(EVENTS, validate_default=True, description="Of which; absent: of all.")
    secret: Annotated[SecretText, AfterValidator(_signing)] | None = Field(
        None, description="What the messages are signed with: whsec_ and base64, as env:NAME or file:/path."
    )


def _unit(value: str) -> str:
    if value in ("request", "conversation", "client") or re.fullmatch(r"header:[!#$%&'*+.^_`|~0-9A-Za-z-]+", value):
        return value
    raise ValueError("no unit: write request, conversation, client or header:NAME")


class Canary(Record):
    """A pool beside another one. It gets a part of its requests, and more of them as it proves to be no worse."""

    baseline: Name = Field(description="The pool whose routes it concerns.")
    canary: Name = Field(description="The pool that is to take its place.")
    mode: Literal["canary", "shadow"] = Field(
        "canary",
        description="shadow: callers get the baseline's answers, and copies of their requests go to the canary.",
    )
    max_concurrent: Count = Field(4, ge=1, description="Of a shadow: how many copies are under way at most.")
    unit: Annotated[str, AfterValidator(_unit)] = Field(
        "request",
        description="What is drawn to an arm and stays for an epoch: request, conversation, client or header:NAME.",
    )
    epoch_s: Wait = Field(
        "1h",
        alias="epoch",
        validate_default=True,
        description="After so long, units but requests are drawn anew.",
    )
    force_header: Switch = Field(
        False, description="May callers choose their arm with x-serinus-arm: canary or baseline?"
    )
    warmup: WarmUp | None = Field(None, description="Before the first step. Absent: none.")
    weight: Weight | None = Field(None, description="A fixed share in percent, without steps.")
    steps: tuple[Step, ...] = Field((), description="Weights that rise, and pauses.")
    analysis: Analysis = Field(default_factory=Analysis, description="How it is judged.")
    slo: Slo | None = Field(None, description="What both arms are held to. Absent: nothing.")
    bake: Bake | None = Field(None, description="After the promotion. Absent: none.")
    webhooks: tuple[Webhook, ...] = Field((), description="Whom to tell of events.")

    @model_validator(mode="after")
    def _compares_two(self) -> Self:
        if self.baseline == self.canary:
            raise ValueError(f"{self.canary} is the baseline and the canary: name another pool")
        return self

    @model_validator(mode="after")
    def _has_one_course(self) -> Self:
        ways = (self.weight is not None) + bool(self.steps) + (self.analysis.method == "bands")
        if ways != 1:
            found = "none of them is there" if not ways else "several are there"
            raise ValueError(f"{found}: write one of steps, weight and analysis: {{method: bands}}")
        weights = [step.set_weight for step in self.steps if step.set_weight is not None]
        if self.steps and self.steps[0].set_weight is None:
            raise ValueError("steps begin with a pause: write set_weight first")
        for before, after in pairwise(weights):
            if after <= before:
                raise ValueError(f"steps: {after:g} comes after {before:g}: write weights that rise")
        if weights and weights[-1] == 100 and self.steps[-1].set_weight is None:
            raise ValueError("steps: a pause after 100 holds nothing: write it before")
        return self
