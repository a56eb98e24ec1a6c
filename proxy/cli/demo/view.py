"""What the demo shows: a screen that moves, or lines of text where there is no screen.

A feature that has something to show adds a panel here: a method that returns what rich can draw.
"""

from collections import deque
from collections.abc import Callable
from datetime import datetime

from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from proxy.benchmark.sample import Sample
from proxy.benchmark.summary import answered_of, spread
from proxy.cli.demo.canary_panel import Explained, canary_line, decision, is_over, panel
from proxy.cli.demo.traffic import Traffic
from proxy.cli.status_sections import pools
from proxy.cli.status_view import Trends, headline
from proxy.controlplane.status import Status

LAST_REQUESTS = 6


class LastRequests:
    """The access log, as far as a screen has room for it."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self.kept: deque[dict[str, object]] = deque(maxlen=LAST_REQUESTS)

    def __call__(self, **fields: object) -> None:
        self.kept.append({**fields, "at": self._now()})


class View:
    """`look` takes note of what is going on; `screen` and `report` show it."""

    def __init__(self, traffic: Traffic | None, last_requests: LastRequests, to_try: str, rule: str = "") -> None:
        """`rule`: the canary's, as YAML."""
        self._traffic, self._last_requests = traffic, last_requests
        self.to_try, self.rule = to_try, rule
        self._trends = Trends()
        self._canary: Explained | None = None

    def look(self, status: Status, canary: Explained | None = None) -> None:
        self._status, self._canary = status, canary
        self._trends.look(status)

    @property
    def canary_is_over(self) -> bool:
        return self._canary is not None and is_over(self._canary)

    def screen(self) -> Group:
        upstreams = self._part("upstreams", pools(self._status, self._trends))
        callers = self._part("callers", self._callers())
        to_try = self._part("try it", Text(self.to_try, no_wrap=True))
        requests = self._part("requests as they end", self._requests())
        if self._canary is None:
            panels = [*upstreams, *callers, *to_try, *requests]
        else:
            canary = self._part("canary", panel(self._canary, self._status))
            rule = self._part("its rule", Text(self.rule.rstrip(), no_wrap=True))
            panels = [*canary, *upstreams, *callers, *rule, *requests, *to_try]
        return Group(headline(self._status), *panels, Text("Ctrl-C ends.", "dim"))

    def report(self, at: datetime, *, last: bool = False) -> Group:
        """For paper. The last one says all of the canary."""
        parts: list[RenderableType] = [
            Text(f"{at:%H:%M:%S}", "dim"),
            pools(self._status, self._trends),
            self._callers(),
        ]
        if self._canary is not None and last:
            parts += ["", panel(self._canary, self._status)]
        elif self._canary is not None:
            parts.append(decision(self._canary) or canary_line(self._canary))
        return Group(*parts, "")

    @staticmethod
    def _part(title: str, content: RenderableType) -> list[RenderableType]:
        return [Rule(title, align="left", style="dim", characters="─"), content]

    def _callers(self) -> Text:
        """What it looks like from the other side."""
        if self._traffic is None:
            return Text("none of our own: use the lines below", "dim")
        return Text(callers_line(*self._traffic.recent()))

    def _requests(self) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
        for fields in self._last_requests.kept:
            status = int(str(fields["status"]))
            table.add_row(
                f"{fields['at']:%H:%M:%S}",
                Text(str(fields["path"])),
                str(fields["upstream"] or "answered here"),
                Text(str(status), "green" if status < 400 else "red"),
                _ms("first byte", fields["ttfb_ms"]),
                _ms("whole", fields["duration_ms"]),
            )
        return table


def callers_line(lasted_s: float, samples: list[Sample]) -> str:
    """`5.8 calls/s, 1 failed in 10 s, first token after 180 ms (p95 510), 210 tokens/s`."""
    if not samples:
        return "no answers yet"
    answered = answered_of(samples)
    parts = [f"{len(samples) / lasted_s:.1f} calls/s", f"{len(samples) - len(answered)} failed in {lasted_s:.0f} s"]
    first = spread(wait_s for sample in answered if (wait_s := sample.first_token_wait_s) is not None)
    if first is not None:
        parts.append(f"first token after {first.p50_s * 1000:.0f} ms (p95 {first.p95_s * 1000:.0f})")
    parts.append(f"{sum(sample.tokens for sample in answered) / lasted_s:.0f} tokens/s")
    return ", ".join(parts)


def _ms(what: str, value: object) -> str:
    return f"{what} {value:.0f} ms" if isinstance(value, int | float) else ""
