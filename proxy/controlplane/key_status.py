"""Each key as an operator sees it: which value is in force, how it fares, what follows it."""

from collections.abc import Iterator

import msgspec

from proxy.controlplane.keyring import Keyring, Ring
from proxy.obs.recent import Window
from proxy.policy.keys import State


class KeyStatus(msgspec.Struct, frozen=True):
    """Values are told apart by their fingerprints."""

    upstream: str
    key: str
    state: str  # active; cooling: refused for lack of quota; resting: refused, and looked into; quarantined; revoked
    fingerprint: str
    inflight: int  # requests that hold it
    used_percent: float  # of its quota, as the upstream tells where there are several keys
    cooling_s: dict[str, float]  # how long still, by model
    last_used_ago_s: float | None = None  # since a request with it ended; None: there was none
    candidate: str | None = None  # the fingerprint of the value that is to follow
    draining: int = 0  # requests that hold values before this one
    rotation: str | None = None  # how the last one goes: validating, overlapping; or went, one of `RESULTS`
    rotation_said: str = ""
    resting: str = ""  # why: the status that it was refused with
    answers_per_s: float = 0.0  # that it drew in the window
    refusals: dict[str, int] = {}  # of this value since the start, by status


def key_statuses(keyring: Keyring, now_s: float, window: Window | None = None) -> Iterator[KeyStatus]:
    """`window`: over which rates are told."""
    for ring in keyring.rings.values():
        answers = 0 if window is None else window.other("answers", ring.upstream, ring.name)
        yield _status(ring, now_s, 0.0 if window is None else round(window.rate(answers), 2))


def _status(ring: Ring, now_s: float, answers_per_s: float) -> KeyStatus:
    live, last = ring.current.live, ring.last
    cooling = {model or "": round(until_s - now_s, 1) for model, until_s in live.account.cool_until_s.items()}
    cooling = {model: left_s for model, left_s in cooling.items() if left_s > 0}
    state = ring.current.life.state
    said = state.value
    if state is State.ACTIVE and (live.resting or cooling):
        said = "resting" if live.resting else "cooling"
    used = live.answers or live.inflight
    return KeyStatus(
        ring.upstream,
        ring.name,
        said,
        live.fingerprint,
        live.inflight,
        round(100 * live.used, 1),
        cooling,
        round(now_s - live.last_used_s, 1) if used and live.last_used_s > -1e300 else None,
        None if ring.candidate is None else ring.candidate.live.fingerprint,
        sum(value.live.inflight for value in ring.leaving),
        None if last is None else last.result,
        "" if last is None else last.said,
        live.resting,
        answers_per_s,
        {str(status): count for status, count in live.refusals.items() if count},
    )
