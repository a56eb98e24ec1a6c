"""What the callers and the two arms of a rehearsal are like.

The reference is an LLM API as measured: prompts of 8 to 32,000 tokens, median 600; a first byte after 0.12 s and 0.15
ms a token, spread by a factor of 1.6; 3 of 100 requests wait 0.5 s and more besides, with a heavy tail; 5 of 1,000
fail.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, ValidationError

from proxy.model.quantities import Count, Duration, Wait
from proxy.model.record import Record, said

Share = Annotated[float, Field(strict=True, ge=0, le=1)]
Factor = Annotated[float, Field(strict=True, ge=0.01, le=1000)]


class Behaviour(Record):
    """Of one arm."""

    latency: Factor = Field(1.0, description="A factor of the wait for the first byte.")
    chunk: Factor = Field(1.0, description="A factor of the time per chunk.")
    errors: Share = Field(0.005, description="Of requests fail after a usual wait.")
    fast_failures: Share = Field(0.0, description="Of requests fail after `fast`.")
    fast_s: Wait = Field("30ms", alias="fast", validate_default=True)
    stalls: Share = Field(0.0, description="Of streams stop for `stall`.")
    stall_s: Wait = Field("30s", alias="stall", validate_default=True)
    refuses: Share = Field(0.0, description="Of requests are answered 404.")
    hangs: Share = Field(0.0, description="Of requests get no byte, and a timeout after `timeout`.")
    timeout_s: Wait = Field("2m", alias="timeout", validate_default=True)


class Noise(Record):
    """What happens to both arms alike."""

    burst_every_s: Duration = Field("0s", alias="burst_every", validate_default=True, description="0s: no bursts.")
    burst_s: Wait = Field("1m", alias="burst", validate_default=True)
    burst_latency: Factor = Field(5.0, description="A factor.")
    burst_errors: Share = 0.3
    follows_weight: Annotated[float, Field(strict=True, ge=0, le=100)] = Field(
        0.0, description="Latency grows with the weight, by so much at 100 %."
    )
    day_s: Wait = Field("1d", alias="day", validate_default=True)
    diurnal: Share = Field(0.0, description="The rate, and with it latency, swings by this share.")


class Scenario(Record):
    """Traffic of made-up callers."""

    per_minute: Annotated[float, Field(strict=True, ge=0.001, le=1e6)] = Field(600.0, description="Requests.")
    duration_s: Wait = Field("6h", alias="duration", validate_default=True)
    before_s: Duration = Field(
        "0s", alias="before", validate_default=True, description="Of baseline traffic before the rollout first looks."
    )
    clients: Count = Field(0, ge=0, description="0: nobody has an id.")
    zipf: Annotated[float, Field(strict=True, ge=0, le=5)] = Field(
        1.1, description="The k-th client makes 1/k^zipf of the first one's requests."
    )
    streams: Share = Field(1.0, description="Share of requests.")
    baseline: Behaviour = Field(default_factory=Behaviour)
    canary: Behaviour = Field(default_factory=Behaviour)
    noise: Noise = Field(default_factory=Noise)

    @classmethod
    def parse(cls, mapping: Mapping[str, Any]) -> "Scenario":
        """From YAML's mapping. Raises ValueError that names the place, what was found, and what would be right."""
        try:
            return cls.model_validate(mapping)
        except ValidationError as error:
            raise ValueError(said(error)) from None
