"""What the configuration says of what is told to those who operate it, besides the log."""

from typing import Literal

from pydantic import Field

from proxy.model.record import Record


class MetricsSettings(Record):
    """What is counted beyond what costs next to nothing."""

    tokens: Literal["limited", "all"] = Field(
        "limited",
        description="Whose tokens are counted. limited: those of clients and upstreams with tokens_per_minute, for "
        "whom answers are read anyway. all: those of every answer; upstreams are then asked to send it uncompressed.",
    )
