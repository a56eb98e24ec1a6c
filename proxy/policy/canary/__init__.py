"""The canary: two arms, and which of them is to have the requests.

A request's way through the room, and a verdict's:

    arms      which arm a request is drawn to                  spec, analysis           what the operator asks for
    enrolment its draw, and its record (one a worker)          commands                 what operators may tell it
    recorder  what is seen of it, as counts
    endings   how its end counts                               progress                 what follows from a verdict
    counts    what closed, mergeable                           states                   what may follow at all
    history   what is slow, frozen from the baseline           events, memory           what is told, shown and kept
    evidence_judge  the verdict; of it:
        kernel    one request's bet        wealth  a bettor's over time     metrics  one measure's
        evidence  a step's                 units   where clients are drawn  slo      both arms against a promise
        spending  how often it may err     bands, simple_judges             the methods that prove nothing

`Rollout` is all that the rest of the proxy needs to know; where workers serve and another process decides, each of them
has an `Enrolment` that follows it.
"""

from proxy.policy.canary.arms import Arm
from proxy.policy.canary.enrolment import Enrolment, Standing
from proxy.policy.canary.events import CanaryEvent
from proxy.policy.canary.rollout import Rollout
from proxy.policy.canary.spec import CanarySpec
from proxy.policy.canary.states import IllegalTransition, State
from proxy.policy.canary.strata import Stratum

__all__ = [
    "Arm",
    "CanaryEvent",
    "CanarySpec",
    "Enrolment",
    "IllegalTransition",
    "Rollout",
    "Standing",
    "State",
    "Stratum",
]
