"""How a status looks in a terminal: what stands above its tables, and the words that all screens share."""

from collections import deque
from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from proxy.controlplane.recorder import Audited
from proxy.controlplane.status import Status

COLOURS = {
    "ok": "green",
    "up": "green",
    "leaving": "yellow",
    "failing": "bold red",
    "idle": "dim",
    "unhealthy": "bold red",
    "ejected": "bold red",
}
COLOURS |= {"active": "green", "cooling": "yellow", "resting": "bold red", "quarantined": "bold red", "revoked": "dim"}
CANARY_COLOURS = {
    "warming": "cyan",
    "progressing": "cyan",
    "promoting": "green",
    "baking": "green",
    "succeeded": "bold green",
    "holding": "yellow",
    "paused": "yellow",
    "inconclusive": "yellow",
    "rolling_back": "bold red",
    "failed": "bold red",
    "aborted": "red",
}
TREND_LOOKS = 24
_SEPARATOR = Text(" · ")
_BARS = " ▁▂▃▄▅▆▇█"


class Trends:
    """Each upstream's rate, look by look, as a line of bars."""

    def __init__(self) -> None:
        self._rates: dict[str, deque[float]] = {}

    def look(self, status: Status) -> None:
        for name, upstream in status.upstreams.items():
            self._rates.setdefault(name, deque(maxlen=TREND_LOOKS)).append(upstream.traffic.requests_per_s)

    def line(self, name: str) -> str:
        """The newest at the right; nothing of what was never seen."""
        if name not in self._rates:
            return ""
        most = max((rate for rates in self._rates.values() for rate in rates), default=0.0)
        bars = [_BARS[round(rate / most * (len(_BARS) - 1))] if most else " " for rate in self._rates[name]]
        return "".join(bars).rjust(TREND_LOOKS)


def headline(status: Status) -> Text:
    """One line: is it well, and how much does it do?"""
    rate = f"last {status.window_s:.0f} s: {status.traffic.requests_per_s:.1f} req/s"
    return _SEPARATOR.join([*_identity(status), Text(rate)])


def headlines(status: Status, width: int) -> list[Text]:
    """Likewise, with what went wrong, in as many lines as it takes."""
    traffic = status.traffic
    parts = [
        Text(f"last {status.window_s:.0f} s: {traffic.requests_per_s:.1f} req/s"),
        Text(f"{traffic.failed_percent:.1f} % failed", "red" if traffic.failed_percent else ""),
        Text(f"{traffic.retries_per_s:.1f} retried/s", "yellow" if traffic.retries_per_s else ""),
        Text(f"{status.limited_per_s:.1f} limited/s", "yellow" if status.limited_per_s else ""),
        *(Text(f"{code}: {count}", _code_colour(code)) for code, count in traffic.codes.items()),
    ]
    return [*flowing(_identity(status), width), *flowing(parts, width)]


def flowing(parts: Iterable[Text], width: int) -> list[Text]:
    """Lines that break only between parts."""
    lines: list[Text] = []
    for part in parts:
        if lines and lines[-1].cell_len + _SEPARATOR.cell_len + part.cell_len <= width:
            lines[-1] = _SEPARATOR.join([lines[-1], part])
        else:
            lines.append(part)
    return lines


def _identity(status: Status) -> list[Text]:
    ready = Text("ready", "green") if status.ready else Text("not ready", "bold red")
    workers = [Text(f"{status.workers} workers")] if status.workers > 1 else []
    callers = "1 caller" if status.connections == 1 else f"{status.connections} callers"
    said = (f"up {lasted(status.uptime_s)}", f"configuration {status.generation}", callers)
    return [Text(f"Serinus {status.version}", "bold"), ready, *map(Text, said), *workers]


def _code_colour(code: str) -> str:
    return "green" if code < "400" else "yellow" if code < "500" else "red"


def reload_line(status: Status) -> Text | None:
    """How the last reload went; None if there was none."""
    last = status.last_reload
    if last is None:
        return None
    if last["result"] == "applied":
        restart = last["need_restart"]
        return Text(f"last reload: applied{'; needs a restart: ' + ', '.join(restart) if restart else ''}", "dim")
    return Text("last reload: rejected: " + "; ".join(last["problems"]), "red")


def certificate_lines(status: Status) -> Iterable[Text]:
    """Of those that somebody has to look after."""
    for listener, certificate in status.certificates.items():
        if certificate.remark:
            yield Text(f"certificate of {listener}: {certificate.remark}", "red")


def lasted(seconds: float) -> str:
    """`47 s`, `12 min`, `5 h`, `3 d`."""
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds // unit:.0f} {name}"
    return f"{seconds:.0f} s"


def number(value: float) -> str:
    """`0.5`, `12.3`, `4,321`, `1.2e+09`."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}" if value < 1e6 else f"{value:.1e}"


def audit_view(audited: Audited) -> RenderableType:
    """The last entries, and whether all of them are what was written."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("time", "who", "from", "what", "about"):
        table.add_column(column, no_wrap=column != "about", overflow="fold")
    for entry in audited.entries:
        about = " ".join(f"{name}={value}" for name, value in entry.about.items())
        table.add_row(entry.time, entry.who, entry.origin, entry.what, Text(about))
    whole = Text(f"{audited.path}: {audited.lines} lines, and the chain holds", "green")
    broken = Text(f"{audited.path} is not what was written: {audited.broken}", "bold red")
    return Group(table, broken if audited.broken else whole)
