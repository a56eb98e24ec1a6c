"""However often evidence begins anew, it errs no more often than alpha in all."""

import pytest

from proxy.policy.canary.spending import MOST_BY_HAND, Spending


def test_each_course_as_planned_costs_one_part():
    spending = Spending(0.01, planned=5)
    assert [spending.threshold(name) for name in ("warm-up", "step 0", "step 1")] == pytest.approx([500.0] * 3)


def test_what_is_begun_again_costs_more_each_time():
    spending = Spending(0.01, planned=5)
    spending.threshold("step 0")
    assert [spending.threshold("step 0") for _ in range(3)] == pytest.approx([1000.0, 3000.0, 6000.0])
    assert spending.threshold("step 1") == pytest.approx(500.0)  # it was planned, and not judged yet


def test_all_of_it_together_is_alpha():
    spending = Spending(0.01, planned=5)
    planned = [spending.threshold(f"step {i}") for i in range(4)]
    by_hand = [spending.threshold("step 0") for _ in range(MOST_BY_HAND)]
    slos = [spending.slo_threshold() for _ in range(1000)]
    spent = sum(1 / each for each in [*planned, *by_hand, *slos])
    assert spent == pytest.approx(0.01, rel=1e-4)
    assert spent <= 0.01
    with pytest.raises(ValueError, match="begin a new rollout"):
        spending.threshold("step 0")


def test_a_dump_remembers_what_was_spent():
    spending = Spending(0.01, planned=5)
    spending.threshold("step 0")
    spending.threshold("step 0")
    again = Spending(0.01, planned=5)
    again.restore(spending.dump())
    assert again.threshold("step 0") == spending.threshold("step 0")
