"""How much may be used, as a configuration says it."""

from pydantic import Field

from proxy.model.quantities import Count
from proxy.model.record import Record


class Rates(Record):
    """How much may be used in a minute. It flows back all the time; who was idle may use a whole minute's at once."""

    requests_per_minute: Count | None = Field(None, ge=1, description="Absent: no limit.")
    tokens_per_minute: Count | None = Field(
        None,
        ge=1,
        description="Of prompts and answers: estimated by a request's size, and corrected by its answer's `usage`. "
        "Absent: no limit.",
    )


class ClientLimits(Rates):
    """How much a client may use, with all of its keys together; beyond it, 429."""

    concurrent: Count | None = Field(
        None, ge=1, description="Requests at once, each until its answer's last byte. Absent: no limit."
    )
