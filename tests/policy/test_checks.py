"""Health as active checks see it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.checks import Health


def fail(health: Health, times: int = 1) -> list[bool]:
    return [health.failed("503") for _ in range(times)]


def unhealthy() -> Health:
    health = Health()
    fail(health, 3)
    return health


def test_never_checked_is_healthy():
    health = Health()
    assert health.healthy
    assert not health.checked
    assert health.verdict == "healthy: not checked yet"


def test_failures_in_a_row_make_it_unhealthy_and_say_so_once():
    health = Health()
    assert fail(health, 5) == [False, False, True, False, False]
    assert not health.healthy


def test_a_pass_between_begins_the_count_anew():
    health = Health()
    fail(health, 2)
    assert not health.passed()
    assert fail(health, 3) == [False, False, True]


def test_passes_in_a_row_make_it_healthy_and_say_so_once():
    health = unhealthy()
    assert [health.passed() for _ in range(4)] == [False, True, False, False]
    assert health.healthy


def test_a_failure_between_passes_begins_their_count_anew():
    health = unhealthy()
    health.passed()
    fail(health)
    assert [health.passed(), health.passed()] == [False, True]


def test_healthy_again_it_has_all_its_failures_before_it():
    health = unhealthy()
    health.passed()
    health.passed()
    assert fail(health, 3) == [False, False, True]


def test_first_check_alone_decides_nothing():
    health = Health()
    assert not health.failed("refused")
    assert health.healthy
    assert health.checked


def test_numbers_may_change_in_between():
    health = Health()
    fail(health, 2)
    health.unhealthy_after = 2
    assert fail(health) == [True]


def test_verdict_says_numbers_and_reason():
    health = Health()
    health.passed()
    assert health.verdict == "healthy"
    health.failed("no answer in 5s")
    assert health.verdict == "healthy: 1 of 3 failed checks (no answer in 5s)"
    health.failed("503")
    health.failed("502")
    assert health.verdict == "unhealthy: 0 of 2 passed checks (last failure: 502)"
    health.passed()
    assert health.verdict == "unhealthy: 1 of 2 passed checks (last failure: 502)"


@pytest.mark.parametrize(("unhealthy_after", "healthy_after"), [(0, 1), (1, 0), (-1, 2)])
def test_less_than_one_check_is_refused(unhealthy_after, healthy_after):
    with pytest.raises(ValueError, match="at least 1 check"):
        Health(unhealthy_after, healthy_after)


@given(st.integers(1, 5), st.integers(1, 5), st.lists(st.booleans(), max_size=60))
def test_state_is_the_last_run_that_was_long_enough(unhealthy_after, healthy_after, checks):
    health = Health(unhealthy_after, healthy_after)
    healthy, run, last = True, 0, None
    for good in checks:
        run = run + 1 if good is last else 1
        last = good
        now = good if run >= (healthy_after if good else unhealthy_after) else healthy
        assert (health.passed() if good else health.failed("")) is (now is not healthy)
        healthy = now
        assert health.healthy is healthy
