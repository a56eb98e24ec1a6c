"""What a client may use, as a story told in seconds, and as laws that no story breaks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.limits import CONCURRENT_RETRY_S, Limit, Limits, NoneUnderWay, Refused, duration, estimated_tokens
from proxy.policy.quota import used_share, wait_s

STARTS_S = st.sampled_from([0.0, 12345.678, 1e7])  # clocks count from some boot or other
RATES = st.integers(1, 10_000) | st.sampled_from([10**6, 10**9])
PASSES_S = st.one_of(st.just(0.0), st.floats(0, 1), st.floats(0, 200))


def emptied(per_minute: int = 60, now_s: float = 0.0) -> Limit:
    limit = Limit(per_minute)
    limit.take(per_minute, now_s)
    return limit


# --- one bucket ----------------------------------------------------------------------------------------------------


def test_a_new_bucket_holds_a_minute():
    limit = Limit(60)
    assert [limit.wait_s(60, 5.0), limit.remaining(5.0), limit.reset_s(5.0)] == [0.0, 60, 0.0]


def test_a_whole_minute_may_be_spent_at_once_and_flows_in_again_bit_by_bit():
    limit = emptied(60)
    assert limit.remaining(0.0) == 0
    assert limit.wait_s(1, 0.0) == 1.0
    assert limit.wait_s(1, 0.75) == 0.25
    assert limit.wait_s(1, 1.0) == 0.0
    assert limit.wait_s(30, 10.0) == 20.0
    assert [limit.remaining(now_s) for now_s in (0.9, 1.0, 59.5, 60.0, 1000.0)] == [0, 1, 59, 60, 60]
    assert [limit.reset_s(now_s) for now_s in (0.0, 59.5, 60.0, 1000.0)] == [60.0, 0.5, 0.0, 0.0]


def test_numbers_are_those_of_openais_documentation():
    limit = Limit(60)
    limit.take(1, 1000.0)
    assert (limit.per_minute, limit.remaining(1000.0), limit.reset_s(1000.0)) == (60, 59, 1.0)


def test_idle_time_is_not_saved_up_beyond_the_limit():
    limit = emptied(60)
    limit.take(1, 10_000.0)
    assert limit.remaining(10_000.0) == 59


def test_asking_costs_nothing():
    limit = emptied(60)
    assert {limit.wait_s(5, 0.0) for _ in range(100)} == {5.0}


def test_what_was_not_used_comes_back():
    limit = emptied(100)
    limit.give_back(40, 0.0)
    assert limit.remaining(0.0) == 40
    assert limit.wait_s(40, 0.0) == 0.0
    assert limit.wait_s(41, 0.0) == pytest.approx(0.6)


def test_what_comes_back_late_makes_it_no_more_than_full():
    limit = emptied(60)
    limit.give_back(60, 30.0)
    assert limit.remaining(30.0) == 60
    limit.give_back(1000, 40.0)
    limit.take(1, 40.0)
    assert limit.remaining(40.0) == 59


def test_what_comes_back_to_a_bucket_that_nobody_used_changes_nothing():
    limit = Limit(60)
    limit.give_back(60, 0.0)
    limit.take(60, 0.0)
    assert limit.remaining(0.0) == 0


def test_a_debt_is_waited_for():
    limit = emptied(60)
    limit.take(30, 0.0)
    assert limit.remaining(0.0) == 0
    assert limit.reset_s(0.0) == 90.0
    assert limit.wait_s(1, 0.0) == 31.0
    assert limit.wait_s(0, 0.0) == 30.0, "what costs nothing waits until the debt is paid"
    assert limit.wait_s(1, 31.0) == 0.0


def test_more_than_the_bucket_holds_goes_when_it_is_full_and_leaves_a_debt():
    limit = Limit(60)
    limit.take(1, 0.0)
    assert limit.wait_s(1000, 0.0) == 1.0
    assert limit.wait_s(1000, 1.0) == 0.0
    limit.take(1000, 1.0)
    assert limit.wait_s(1, 1.0) == 941.0


@pytest.mark.parametrize("per_minute", [0, -1])
def test_a_limit_that_lets_nothing_through_is_refused(per_minute):
    with pytest.raises(ValueError, match=f"per_minute is {per_minute}, which lets nothing through: at least 1"):
        Limit(per_minute)
    limit = emptied(60)
    with pytest.raises(ValueError, match=f"per_minute is {per_minute}"):
        limit.reconfigured(per_minute, 0.0)
    assert limit.per_minute == 60


# --- one bucket under another configuration ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("used", "before", "after", "remaining"),
    [
        (0, 600, 100, 100),
        (0, 100, 600, 600),
        (300, 600, 600, 300),
        (300, 600, 1200, 900),
        (50, 600, 100, 50),
        (300, 600, 100, 0),
    ],
)
def test_what_was_used_stays_used(used, before, after, remaining):
    limit = Limit(before)
    limit.take(used, 7.0)
    limit.reconfigured(after, 7.0)
    assert limit.remaining(7.0) == remaining
    assert limit.reset_s(7.0) <= 60.0, "a smaller limit makes no debt"


def test_a_bucket_flows_in_at_its_new_rate():
    limit = emptied(60)
    limit.reconfigured(600, 0.0)
    assert limit.remaining(0.0) == 540
    limit.take(540, 0.0)
    assert limit.wait_s(1, 0.0) == pytest.approx(0.1)


def test_a_debt_is_paid_sooner_at_a_higher_rate_and_not_later_at_a_lower_one():
    limit = emptied(60)
    limit.take(60, 0.0)
    limit.reconfigured(30, 0.0)
    assert limit.reset_s(0.0) == 120.0
    limit.reconfigured(300, 0.0)
    assert limit.reset_s(0.0) == pytest.approx(12.0)


@given(STARTS_S, st.integers(1, 10_000), st.integers(0, 10**6), st.integers(1, 10_000), PASSES_S)
def test_no_reload_refills_a_bucket(start_s, before, used, after, passes_s):
    """There and back again, what was used is missing still, but for what does not fit in the smaller bucket."""
    limit = Limit(before)
    limit.take(used, start_s)
    now_s = start_s + passes_s
    missing_s = limit.reset_s(now_s)
    limit.reconfigured(after, now_s)
    limit.reconfigured(before, now_s)
    assert limit.reset_s(now_s) <= missing_s + 1e-3
    assert limit.reset_s(now_s) >= min(missing_s, 60.0, 60.0 * after / before) - 1e-3
    missing_s = limit.reset_s(now_s)
    limit.reconfigured(before, now_s)
    assert limit.reset_s(now_s) == pytest.approx(missing_s, abs=1e-6)


# --- laws of one bucket --------------------------------------------------------------------------------------------


@given(STARTS_S, RATES, st.lists(st.tuples(PASSES_S, st.floats(0, 1)), max_size=60))
def test_no_span_lets_through_more_than_the_capacity_and_what_flowed_in(now_s, per_minute, tries):
    limit, went = Limit(per_minute), []
    for passes_s, share in tries:
        now_s += passes_s
        cost = int(share * per_minute)
        if limit.wait_s(cost, now_s) == 0.0:
            limit.take(cost, now_s)
            went.append((now_s, cost))
    for first, (since_s, _) in enumerate(went):
        through = 0
        for at_s, cost in went[first:]:
            through += cost
            assert through <= per_minute * (1 + (at_s - since_s + 1e-5) / 60)


@given(STARTS_S, RATES, st.integers(0, 10**6), st.integers(0, 10**6), PASSES_S)
def test_who_waits_as_long_as_was_said_may_go_and_not_much_sooner(start_s, per_minute, used, cost, passes_s):
    limit = Limit(per_minute)
    limit.take(used, start_s)
    now_s = start_s + passes_s
    said_s = limit.wait_s(cost, now_s)
    assert limit.wait_s(cost, now_s + said_s) == 0.0
    if said_s > 0.001:
        assert limit.wait_s(cost, now_s + said_s - 0.001) > 0.0


@given(STARTS_S, RATES, st.integers(0, 10**6), PASSES_S)
def test_what_remains_may_be_taken_and_one_more_may_not(start_s, per_minute, used, passes_s):
    limit = Limit(per_minute)
    limit.take(used, start_s)
    now_s = start_s + passes_s
    remaining = limit.remaining(now_s)
    assert 0 <= remaining <= per_minute
    if remaining:
        assert limit.wait_s(remaining, now_s) == 0.0
    if remaining < per_minute < 10**6:  # above it, one is less than the rounding of moments
        assert limit.wait_s(remaining + 1, now_s) > 0.0
    assert limit.remaining(now_s + limit.reset_s(now_s)) == per_minute


@given(STARTS_S, RATES, st.lists(st.tuples(PASSES_S, st.integers(0, 20_000), st.integers(0, 20_000)), max_size=60))
def test_corrections_make_nothing_out_of_nothing(start_s, per_minute, requests):
    """Whatever is taken, corrected up or down, early or late: what was used in all has flowed in, or is still missing.

    Each request's correction comes with the beginning of the next but one.
    """
    limits, now_s, used_in_all, open_ones = Limits(tokens_per_minute=per_minute), start_s, 0, []
    for passes_s, estimated, used in requests:
        now_s += passes_s
        if len(open_ones) > 1:
            limits.ended(*open_ones.pop(0), now_s)
        limits.began(estimated, now_s)
        open_ones.append((estimated, used))
        used_in_all += used
    for one in open_ones:
        limits.ended(*one, now_s)
    flowed_s = now_s - start_s + limits.tokens.reset_s(now_s)
    assert used_in_all <= per_minute * (flowed_s + 1e-5) / 60 + 1e-6 * used_in_all


# --- the three together --------------------------------------------------------------------------------------------


def test_without_limits_everything_may_go():
    limits = Limits()
    for _ in range(1000):
        assert limits.refusal(10**9, 0.0) is None
        limits.began(10**9, 0.0)
    limits.ended(10**9, 2 * 10**9, 0.0)
    assert limits.refusal(10**9, 0.0) is None
    assert limits.headers(0.0) == b""


def test_each_limit_refuses_by_its_name_and_number():
    limits = Limits(requests_per_minute=2)
    limits.began(1, 0.0)
    limits.began(1, 0.0)
    assert limits.refusal(1, 0.0) == Refused("requests", 2, 30.0)
    limits = Limits(tokens_per_minute=600)
    limits.began(600, 0.0)
    assert limits.refusal(100, 0.0) == Refused("tokens", 600, pytest.approx(10.0))
    limits = Limits(concurrent=1)
    limits.began(1, 0.0)
    assert limits.refusal(1, 0.0) == Refused("concurrent", 1, CONCURRENT_RETRY_S)
    limits.ended(1, None, 0.0)
    assert limits.refusal(1, 0.0) is None


def test_of_several_limits_the_longest_wait_is_told():
    limits = Limits(requests_per_minute=60, tokens_per_minute=60, concurrent=1)
    for _ in range(60):
        limits.began(1, 0.0)
    assert limits.refusal(10, 0.0).limit == "tokens"
    assert limits.refusal(0, 0.0).limit == "concurrent"
    limits.requests.take(5, 0.0)
    assert limits.refusal(0, 0.0) == Refused("requests", 60, 6.0)


def test_a_request_ends_once():
    limits = Limits(concurrent=1)
    limits.began(0, 0.0)
    limits.ended(0, 0, 0.0)
    with pytest.raises(NoneUnderWay):
        limits.ended(0, 0, 0.0)
    assert limits.under_way == 0


def test_usage_corrects_the_estimate_both_ways():
    limits = Limits(tokens_per_minute=1000)
    limits.began(100, 0.0)
    limits.ended(100, 30, 0.0)
    assert limits.tokens.remaining(0.0) == 970
    limits.began(100, 0.0)
    limits.ended(100, 1200, 0.0)
    assert limits.tokens.reset_s(0.0) == pytest.approx(1230 * 0.06)
    assert limits.refusal(1, 0.0).limit == "tokens"


@pytest.mark.parametrize("name", ["requests_per_minute", "tokens_per_minute", "concurrent"])
@pytest.mark.parametrize("number", [0, -5])
def test_limits_below_one_are_refused_and_change_nothing(name, number):
    with pytest.raises(ValueError, match=f"{name} is {number}, which lets nothing through"):
        Limits(**{name: number})
    limits = Limits(10, 10, 10)
    numbers = {"requests_per_minute": 5, "tokens_per_minute": 5, "concurrent": 5, name: number}
    with pytest.raises(ValueError, match=f"{name} is {number}, which lets nothing through"):
        limits.reconfigured(**numbers, now_s=0.0)
    assert (limits.requests.per_minute, limits.tokens.per_minute, limits.concurrent) == (10, 10, 10)


def test_a_reload_keeps_what_was_used_and_who_is_under_way():
    limits = Limits(requests_per_minute=10, tokens_per_minute=100, concurrent=2)
    limits.began(40, 0.0)
    limits.reconfigured(10, 200, 1, 0.0)
    assert limits.requests.remaining(0.0) == 9
    assert limits.tokens.remaining(0.0) == 160
    assert limits.refusal(1, 0.0) == Refused("concurrent", 1, CONCURRENT_RETRY_S)
    limits.ended(40, None, 0.0)
    assert limits.refusal(1, 0.0) is None


def test_a_reload_may_bring_limits_and_take_them_away():
    limits = Limits()
    limits.began(40, 0.0)
    limits.reconfigured(10, 100, 1, 0.0)
    assert limits.refusal(1, 0.0).limit == "concurrent"
    assert limits.tokens.remaining(0.0) == 100
    limits.ended(40, 50, 0.0)
    assert limits.tokens.remaining(0.0) == 90
    limits.reconfigured(None, None, None, 0.0)
    assert limits.refusal(10**6, 0.0) is None


MAYBE = st.none() | st.integers(1, 50)


@given(
    STARTS_S,
    MAYBE,
    st.none() | st.integers(1, 5000),
    MAYBE,
    st.lists(st.tuples(st.sampled_from(("begins", "ends", "fails")), PASSES_S, st.integers(0, 3000)), max_size=80),
)
def test_no_order_of_requests_oversteps_a_limit(now_s, requests, tokens, concurrent, events):
    limits, start_s, went, spent, biggest, under_way = Limits(requests, tokens, concurrent), now_s, 0, 0, 0, 0
    for event, passes_s, cost in events:
        now_s += passes_s
        if event == "ends" and under_way:
            limits.ended(0, None, now_s)
            under_way -= 1
        elif event != "ends":
            before = (limits.headers(now_s), limits.under_way)
            refusal = limits.refusal(cost, now_s)
            refused = limits.begin(cost, now_s)
            assert refused == refusal
            if refused is not None:
                assert (limits.headers(now_s), limits.under_way) == before
                assert refused.retry_after_s > 0
                after = limits.refusal(cost, now_s + refused.retry_after_s)
                assert after is None or after.limit == "concurrent", "who waited may go"
                continue
            if event == "fails":
                limits.undo(cost, now_s)
                assert (limits.headers(now_s), limits.under_way) == before
                continue
            went, spent, biggest, under_way = went + 1, spent + cost, max(biggest, cost), under_way + 1
        assert limits.under_way == under_way
        assert concurrent is None or under_way <= concurrent
        flowed = (now_s - start_s + 1e-3) / 60
        assert requests is None or went <= requests * (1 + flowed)
        assert tokens is None or spent <= max(tokens, biggest) + tokens * flowed
    for _ in range(under_way):
        limits.ended(0, None, now_s)
    assert limits.under_way == 0


# --- what callers are told -----------------------------------------------------------------------------------------


def test_headers_are_those_of_openai():
    limits = Limits(requests_per_minute=60, tokens_per_minute=150_000)
    limits.began(16, 5.0)
    assert limits.headers(5.0) == (
        b"\r\nx-ratelimit-limit-requests: 60\r\nx-ratelimit-remaining-requests: 59\r\nx-ratelimit-reset-requests: 1s"
        b"\r\nx-ratelimit-limit-tokens: 150000\r\nx-ratelimit-remaining-tokens: 149984\r\nx-ratelimit-reset-tokens: 7ms"
    )


def test_only_what_is_limited_is_told():
    assert Limits(concurrent=3).headers(0.0) == b""
    assert Limits(requests_per_minute=3).headers(0.0) == (
        b"\r\nx-ratelimit-limit-requests: 3\r\nx-ratelimit-remaining-requests: 3\r\nx-ratelimit-reset-requests: 0s"
    )
    assert b"requests" not in Limits(tokens_per_minute=3).headers(0.0)


def test_a_debt_is_told_as_nothing_left_and_a_long_reset():
    limits = Limits(tokens_per_minute=100)
    limits.began(1000, 0.0)
    assert limits.headers(0.0).endswith(b"remaining-tokens: 0\r\nx-ratelimit-reset-tokens: 10m0s")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, b"0s"),
        (0.12, b"120ms"),
        (0.0001, b"1ms"),
        (0.9991, b"1s"),
        (1.0, b"1s"),
        (7.66, b"7.66s"),
        (7.5, b"7.5s"),
        (10.0, b"10s"),
        (59.9999, b"1m0s"),
        (60.0, b"1m0s"),
        (60.005, b"1m0.005s"),
        (360.0, b"6m0s"),
        (3600.25, b"1h0m0.25s"),
        (85656.648, b"23h47m36.648s"),
    ],
)
def test_durations_as_openai_writes_them(seconds, text):
    assert duration(seconds) == text


@given(st.floats(0, 86_000))
def test_durations_are_read_back_by_who_reads_the_vendors(seconds):
    said = b"\r\nx-ratelimit-remaining-a: 0\r\nx-ratelimit-reset-a: " + duration(seconds)
    read_s = wait_s(said, 0.0)
    assert seconds - 1e-5 <= read_s <= seconds + 0.00101


@given(STARTS_S, RATES, st.integers(0, 10**6), PASSES_S)
def test_headers_are_read_back_by_who_reads_the_vendors(start_s, tokens, used, passes_s):
    limits = Limits(tokens_per_minute=tokens)
    limits.began(used, start_s)
    now_s = start_s + passes_s
    share = used_share(limits.headers(now_s))
    assert share == pytest.approx(1 - limits.tokens.remaining(now_s) / tokens)


@pytest.mark.parametrize(("body_bytes", "tokens"), [(0, 0), (1, 1), (4, 1), (5, 2), (4000, 1000)])
def test_a_token_is_about_four_bytes(body_bytes, tokens):
    assert estimated_tokens(body_bytes) == tokens
