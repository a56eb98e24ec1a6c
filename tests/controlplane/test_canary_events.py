"""What happens to a canary is logged, counted and told, whatever its numbers are called."""

from random import Random

from proxy.controlplane.canaries import Canaries
from proxy.controlplane.load import parse
from proxy.policy.canary import CanaryEvent
from tests.support.running import Events, recording_log

CONFIG = """
upstreams: {up: {base_url: "http://127.0.0.1:1"}}
pools:
  chat: {members: [{upstream: up}]}
  next: {members: [{upstream: up}]}
routes: [{prefix: /, pool: chat, canary: trial}]
canaries: {trial: {baseline: chat, canary: next, steps: [{set_weight: 10}]}}
"""


def test_a_rollback_is_told_with_the_counts_of_both_arms(monkeypatch):
    logged, told = Events(), []
    canaries = Canaries(parse(CONFIG, {}).settings, lambda: 0.0, Random(1), recording_log(logged))
    canaries.on_event = lambda canary, event, who: told.append((canary, event.name))
    numbers = {"weight": 0.0, "evidence": 412.0, "baseline": {"failed": 7}, "canary": {"failed": 18}, "event": 1}
    rolled_back = CanaryEvent("rolled_back", 0.0, "rolled_back: E=412 ≥ 400", numbers)
    monkeypatch.setattr(canaries.find("trial"), "tick", lambda now_s, others: [rolled_back])
    canaries.expired(1.0)
    assert told == [("trial", "rolled_back")]
    (line,) = logged.named("canary")
    assert (line["canary"], line["happened"], line["numbers"]) == ("trial", "rolled_back", numbers)
    assert canaries.transitions == {("trial", "rolled_back"): 1}
