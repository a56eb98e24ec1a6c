"""The canary: two arms, and which of them is to have the requests.

A request's way through the room, and a verdict's:

    arms      which arm a request is drawn to                  spec, analysis           what the operator asks for
    recorder  what is seen of it, as counts (one a worker)     commands                 what operators may tell it
    endings   how its end counts                               progress                 what follows from a verdict
    counts    what closed, mergeable                           states                   what may follow at all
    history   what is slow, frozen from the baseline           events, memory           what is told, shown and kept
    evidence_judge  the verdict; of it:
        kernel    one request's bet        wealth  a bettor's over time     metrics  one measure's
        evidence  a step's                 units   where clients are drawn  slo      both arms against a promise
        spending  how often it may err     bands, simple_judges             the methods that prove nothing

`Rollout` is all that the rest of the proxy needs to know.
"""

from proxy.policy.canary.arms import Arm
from proxy.policy.canary.events import CanaryEvent
from proxy.policy.canary.rollout import Rollout
from proxy.policy.canary.spec import CanarySpec
from proxy.policy.canary.states import IllegalTransition, State
from proxy.policy.canary.strata import Stratum

__all__ = ["Arm", "CanaryEvent", "CanarySpec", "IllegalTransition", "Rollout", "State", "Stratum"]
