"""How a simulated upstream behaves: one frozen record, replaced as a whole while the upstream runs.

A request keeps the behaviour it began with; the next one sees the new.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Behaviour:
    name: str = "simulated"  # answers carry it in `x-simulated-upstream`
    ttft_s: float = 0.0  # from the request's last byte to the answer's first
    per_token_s: float = 0.0  # between one token and the next
    tokens: int = 20  # an answer's length where the request sets none
    jitter: float = 0.0  # 0.2 makes every wait 80 % to 120 % of itself
    error_rate: float = 0.0  # the share of requests answered with `error_status`
    error_status: int = 500
    models: tuple[str, ...] = ("simulated-large", "simulated-small", "simulated-embedding")
    strict_models: bool = False  # a model that is not in `models` is answered with 404
    api_key: str | None = field(default=None, repr=False)  # any other key, or none, is answered with 401

    def __post_init__(self) -> None:
        if min(self.ttft_s, self.per_token_s) < 0:
            raise ValueError("a wait cannot be negative")
        if not (0 <= self.error_rate <= 1 and 0 <= self.jitter <= 1):
            raise ValueError("error_rate and jitter are shares, from 0 to 1")
        if not 400 <= self.error_status <= 599:
            raise ValueError("error_status is a status from 400 to 599")
        if self.tokens < 1:
            raise ValueError("an answer has at least 1 token")
