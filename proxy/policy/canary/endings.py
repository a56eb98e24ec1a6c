"""How the end of a request counts. The numbers are places in the tally.

A 4xx is an error of its arm: a canary that knows no such model or parameter answers 400 or 404 to everyone, and what
callers cause falls on both arms alike. It is no failure, for its wait was what it was; but 408 and 429 say only that
there was no answer. What nobody did wrong says nothing at all.
"""

from proxy.model.outcome import Outcome
from proxy.policy.canary.counts import TALLY

FINE, REFUSED, FAILED, GONE, STALLS, STARTED = range(TALLY)

_ENDINGS = dict.fromkeys(Outcome, FAILED) | {Outcome.OK: FINE, Outcome.KEY_REFUSED: REFUSED}
_ENDINGS |= dict.fromkeys((Outcome.CLIENT_GONE, Outcome.STOPPED, Outcome.HEDGED), GONE)
_NO_ANSWER = (408, 429)


def ending_of(outcome: Outcome, status: int) -> int:
    """FINE, REFUSED, FAILED or GONE; `status` is the upstream's."""
    ending = _ENDINGS[outcome]
    if ending != FINE or status < 400:
        return ending
    return FAILED if status >= 500 or status in _NO_ANSWER else REFUSED
