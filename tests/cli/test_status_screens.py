"""What `serinus status` and `top` draw of one status, at several sizes: whole screens, in tests/golden/status."""

import re
from pathlib import Path

import pytest

from proxy.cli.section import SORTS, Column, Row, Section, shared
from proxy.cli.status_screen import PARTS, Wanted, page, screen
from proxy.cli.status_view import Trends
from proxy.controlplane.canary_status import ArmStatus, CanaryStatus
from proxy.controlplane.client_status import ClientTraffic
from proxy.controlplane.key_status import KeyStatus
from proxy.controlplane.status import (
    MemberStatus,
    PoolStatus,
    Quantiles,
    Status,
    TargetStatus,
    Traffic,
    UpstreamStatus,
)

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "status"
WAITS = Quantiles(1.5, 420.0, 1310.0)
WHOLE = Traffic(26.2, 0.6, WAITS, Quantiles(790.0, 4200.0, 9000.0), 0.1, {"200": 1566, "429": 3, "502": 6})
FINE = Traffic(19.4, 0.0, WAITS, WHOLE.duration_ms, 0.0, {"200": 1164})
BAD = Traffic(0.8, 81.2, Quantiles(12.0, 30.0, 41.0), None, 0.1, {"200": 9, "502": 39})
NEW = Traffic(6.0, 0.3, Quantiles(160.0, 510.0, 940.0), WHOLE.duration_ms, 0.0, {"200": 359, "500": 1})
NONE = Traffic(0.0, 0.0, None, None)


def keys() -> dict[str, KeyStatus]:
    main = KeyStatus(
        "openai", "main", "active", "5f2c8a01", 11, 62.0, {}, 0.2, candidate="77ab10cd", draining=2,
        rotation="overlapping", answers_per_s=14.2,
    )  # fmt: skip
    cooling = KeyStatus("openai", "spare", "cooling", "09d1e2f3", 0, 100.0, {"gpt-4.1": 41.0, "": 7.0}, 12.0)
    resting = KeyStatus("openai", "old", "resting", "aa00bb11", 0, 0.0, {}, 400.0, resting="401", refusals={"401": 3})
    return {key.key: key for key in (main, cooling, resting)}


STATUS = Status(
    version="1.2.3",
    ready=True,
    generation=7,
    uptime_s=93_000.0,
    window_s=60.0,
    connections=31,
    traffic=WHOLE,
    answered_here_per_s=0.1,
    upstreams={
        "openai": UpstreamStatus("https://api.openai.com/v1", "ok", 11, FINE, {}, keys(), last_failure_ago_s=2700.0),
        "azure-sweden-central": UpstreamStatus("https://x.openai.azure.com/openai/v1", "failing", 1, BAD, {}, {},
                                               last_failure_ago_s=4.0),
        "vllm": UpstreamStatus("http://vllm:8000/v1", "ok", 4, NEW, {}, {},
                               {"10.0.0.7": TargetStatus(3, "up"), "10.0.0.8": TargetStatus(1, "ejected")}, 31.0),
        "standby": UpstreamStatus("http://standby/v1", "idle", 0, NONE, {}, {}),
    },
    pools={
        "chat": PoolStatus(
            Traffic(20.2, 0.7, WAITS, None, 0.1),
            [
                MemberStatus("openai", 3, 75.0, FINE),
                MemberStatus("azure-sweden-central", 1, 25.0, BAD, "gpt-4.1-prod", None, "ejected", 21.0, 2),
                MemberStatus("standby", 0, 0.0, NONE, None, "main"),
            ],
            12, {"502": 6}, 0.1,
        ),
        "chat-next": PoolStatus(NEW, [MemberStatus("vllm", 1, 100.0, NEW)], 4),
    },
    clients={
        "batch": ClientTraffic(
            2, 403, 1.8, 5.1, None, {"requests_per_minute": 120, "concurrent": 2},
            {"requests_per_minute": 4, "concurrent": 0}, {"requests": 400, "concurrent": 3},
        ),
        "web-app": ClientTraffic(
            9, 0, 24.3, 0.0, 151_200.0, {"tokens_per_minute": 200_000}, {"tokens_per_minute": 171_000}
        ),
    },
    canaries={
        "next-gen": CanaryStatus(
            "chat", "chat-next", "weighted", "progressing", 190.0, 25.0, ["ttft: 11.2 < 20"], ["5 %", "25 %", "100 %"],
            1, 0.42, 400.0, {"ttft": 11.2, "errors": 64.0}, 20.0,
            {
                "baseline": ArmStatus(3600, 0.4, {"p50": 171.0, "p95": 420.0}),
                "canary": ArmStatus(1200, 0.3, {"p50": 160.0}),
            },
        )
    },
    workers=4,
    clients_quiet=2,
    limited_per_s=5.1,
)  # fmt: skip


def trends() -> Trends:
    seen = Trends()
    for _ in range(3):
        seen.look(STATUS)
    return seen


def text(lines) -> str:
    return "".join(line.plain.rstrip() + "\n" for line in lines)


@pytest.mark.parametrize("width", [80, 120, 200])
def test_a_page_has_the_columns_that_fit_and_all_rows(width):
    shown = text(page(STATUS, trends(), Wanted(), width))
    assert shown == (GOLDEN / f"page-{width}.txt").read_text()
    assert max(map(len, shown.splitlines())) <= width


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (200, 60)])
def test_a_screen_is_never_higher_than_the_terminal_and_counts_what_it_leaves_out(width, height):
    shown = text(screen(STATUS, trends(), Wanted(), width, height))
    assert shown == (GOLDEN / f"screen-{width}x{height}.txt").read_text()
    assert shown.count("\n") == height


@pytest.mark.parametrize("width", [1, 20, 40, 60, 79, 81, 132, 400])
@pytest.mark.parametrize("height", [1, 5, 11, 24, 33, 80])
def test_whatever_the_terminal_the_keys_stand_in_its_last_line(width, height):
    lines = screen(STATUS, trends(), Wanted(), width, height)
    assert len(lines) == height
    assert lines[-1].plain[0] in "q…"
    assert lines[-1].cell_len <= width


def test_one_part_has_the_whole_screen_and_scrolls():
    many = Status(
        **{name: getattr(STATUS, name) for name in STATUS.__struct_fields__}
        | {"upstreams": {f"up{n}": UpstreamStatus("http://x", "ok", n, NONE, {}, {}) for n in range(40)}}
        | {"pools": {}}
    )
    wanted = Wanted(only=("upstreams",))
    assert "… 27 more upstreams" in text(screen(many, Trends(), wanted, 100, 20))
    for _ in range(3):
        wanted.pressed("down")
    shown = text(screen(many, Trends(), wanted, 100, 20))
    assert "… 3 more upstreams above" in shown
    assert "up3 " in shown
    assert "up2 " not in shown
    for _ in range(100):
        wanted.pressed("down")
    shown = text(screen(many, Trends(), wanted, 100, 20))
    assert "up39 " in shown
    assert "above" in shown


def test_keys_sort_pause_and_go_from_part_to_part():
    wanted = Wanted()
    seen = []
    for _ in range(len(PARTS) + 1):
        wanted.pressed("\t")
        seen.append(wanted.only)
    assert seen == [*((part,) for part in PARTS), ()]
    wanted.pressed("s")
    wanted.pressed("p")
    wanted.pressed("?")
    assert (wanted.sort, wanted.paused) == ("rate", True)
    wanted.pressed(" ")
    assert not wanted.paused


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("config", ["openai", "azure-sweden-central", "vllm", "standby"]),
        ("rate", ["openai", "vllm", "azure-sweden-central", "standby"]),
        ("failed", ["azure-sweden-central", "vllm", "openai", "standby"]),
        ("inflight", ["openai", "vllm", "azure-sweden-central", "standby"]),
        ("name", ["azure-sweden-central", "openai", "standby", "vllm"]),
    ],
)
def test_rows_are_sorted_with_what_stands_below_them(by, names):
    (upstreams,) = Wanted(("upstreams",), by).of(STATUS, Trends())
    lines = [line.plain.split()[0] for line in upstreams.lines(80)[2:]]
    assert [name for name in lines if "." not in name] == names
    assert lines[lines.index("vllm") + 1 : lines.index("vllm") + 3] == ["10.0.0.7", "10.0.0.8"]


def test_names_lose_their_middle_and_columns_that_matter_little_go_before_a_name_gets_too_short():
    rows = [Row(["a-name-that-is-too-long-for-it", "1", "22"])]
    section = Section("things", [Column("thing"), Column("rate"), Column("more", 1)], rows)
    assert section.lines(42)[-1].plain == "a-name-that-is-too-long-for-it     1    22"
    assert section.lines(36)[-1].plain == "a-name-that-…long-for-it     1    22"
    assert section.lines(33)[-1].plain == "a-name-that-i…o-long-for-it     1"


@pytest.mark.parametrize(
    ("wanted", "room", "given"),
    [([3, 9, 5], 30, [3, 9, 5]), ([3, 9, 5], 12, [3, 5, 4]), ([4, 4], 5, [2, 3]), ([4, 4], -1, [0, 0]), ([], 9, [])],
)
def test_lines_are_shared_by_those_who_want_more(wanted, room, given):
    assert shared(wanted, room) == given


def test_what_there_is_nothing_of_is_said():
    quiet = Status("1", True, 1, 1.0, 1.0, 0, NONE, 0.0, {}, {})
    assert "There is nothing to show of: keys, clients" in text(page(quiet, Trends(), Wanted(("keys", "clients")), 80))


@pytest.mark.parametrize(("connections", "said"), [(0, "0 callers"), (1, "1 caller\n"), (2, "2 callers")])
def test_one_caller_is_one(connections, said):
    quiet = Status("1", True, 1, 1.0, 1.0, connections, NONE, 0.0, {}, {})
    assert said in text(page(quiet, Trends(), Wanted(), 120))


def test_every_column_part_and_option_is_described():
    described = (ROOT / "docs" / "status-and-top.md").read_text()
    for section in Wanted().of(STATUS, trends()):
        for column in section.columns:
            assert column.title.replace("\n", " ") in described, f"{section.name}: {column.title!r}"
    for word in (*PARTS, *SORTS):
        assert f"`{word}`" in described


def test_the_example_that_is_shown_has_the_heads_that_are_drawn():
    shown = re.search(r"```text\n(.*?)```", (ROOT / "docs" / "status-and-top.md").read_text(), re.DOTALL)[1]
    assert max(map(len, shown.splitlines())) <= 100
    titles = {column.title.split("\n")[0] for part in Wanted().of(STATUS, Trends()) for column in part.columns}
    for section in Wanted().of(STATUS, Trends()):
        (head,) = [line for line in shown.splitlines() if line.startswith(f"{section.columns[0].title} ")]
        assert set(re.split(r"\s{2,}", head.strip())) <= titles
