import pytest

from proxy.obs.metrics import Metrics, SeriesLabels
from proxy.obs.recent import LONGEST_S, NOTHING, READING_S, Recent


class Clock:
    now_s = 100.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def recent(metrics, clock):
    return Recent(metrics, clock)


def pass_time(recent, clock, seconds):
    """As a watch does."""
    until_s = clock.now_s + seconds
    while clock.now_s < until_s:
        clock.now_s += 0.5
        if recent.deadline_s <= clock.now_s:
            recent.expired(clock.now_s)


def answer(metrics, wait_s=0.2, *, pool="chat", upstream="openai", route="/v1", failed=False):
    series = metrics.series(SeriesLabels(route, pool, upstream))
    series.count(502 if failed else 200)
    series.failures += failed
    series.first_byte.observe(wait_s)
    series.duration.observe(2 * wait_s)


def test_before_anything_happened_there_is_nothing(recent):
    window = recent.over(10)
    assert (window.lasted_s, window.whole, window.rate(5)) == (0, NOTHING, 0)
    assert window.of_upstream("openai").first_byte_s(0.5) is None


def test_only_what_passed_in_the_window_counts(recent, metrics, clock):
    for _ in range(100):
        answer(metrics, 5.0)
    pass_time(recent, clock, 30)
    for _ in range(20):
        answer(metrics, 0.2)
    window = recent.over(10)
    assert window.lasted_s == pytest.approx(10, abs=READING_S / 2)
    assert window.rate(window.whole.requests) == 20 / window.lasted_s
    assert window.whole.first_byte_s(0.99) == pytest.approx(0.2, rel=0.1)
    assert window.whole.duration_s(0.5) == pytest.approx(0.4, rel=0.1)
    assert recent.over(60).whole.requests == 120


def test_what_happened_since_the_last_reading_counts_too(recent, metrics, clock):
    pass_time(recent, clock, 10)
    clock.now_s += READING_S / 4
    answer(metrics)
    assert recent.over(4).whole.requests == 1


def test_a_window_reaches_back_to_the_start_and_no_further_than_is_kept(recent, metrics, clock):
    answer(metrics)
    pass_time(recent, clock, 4)
    assert recent.over(60).lasted_s == 4
    pass_time(recent, clock, 10 * LONGEST_S)
    assert recent.over(600).lasted_s == pytest.approx(LONGEST_S, abs=READING_S)
    assert recent.over(600).whole.requests == 0


def test_traffic_is_told_apart_by_pool_and_upstream_and_put_together_from_routes(recent, metrics, clock):
    answer(metrics, route="/v1", failed=True)
    answer(metrics, route="/v2")
    answer(metrics, pool="other", failed=True)
    answer(metrics, upstream="azure")
    metrics.series(SeriesLabels("/v1", "chat")).count(404)
    metrics.series(SeriesLabels()).count(404)
    pass_time(recent, clock, 2)
    window = recent.over(60)
    openai = window.of_upstream("openai")
    assert (openai.requests, openai.failures) == (3, 2)
    assert window.of_member("chat", "openai").requests == 2
    assert window.of_pool("chat").requests == 4  # one of them answered here
    assert (window.answered_here.requests, window.whole.requests) == (2, 6)
    assert window.of_pool("nowhere") is NOTHING
    assert window.of_member("chat", "nobody") is NOTHING
