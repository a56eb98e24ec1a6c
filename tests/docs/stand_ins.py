"""What of the documents' commands is run, and what is not, with what stands in for it.

A command that is in none of these tables fails the test of its page: nothing is shown that nobody has tried.
"""

import re
from dataclasses import dataclass

# Programs that a scene runs as they are.
RUN = {
    "bash",
    "cat",
    "chmod",
    "cp",
    "curl",
    "diff",
    "echo",
    "export",
    "grep",
    "head",
    "jq",
    "kill",
    "ls",
    "mkdir",
    "mv",
}
RUN |= {"openssl", "printf", "python", "rm", "sed", "serinus", "tail", "test"}


@dataclass(frozen=True, slots=True)
class StandIn:
    """A command that cannot run in a test: what is run for it, if anything, and what else looks after it."""

    pattern: str
    instead: str | None
    because: str


# The first that matches from a command's beginning counts; `instead` may use its groups.
STAND_INS = (
    StandIn(r"make demo CANARY=(\w+)", r"serinus demo --plain --\1-canary", "it installs; `make` is run by CI"),
    StandIn(r"make demo", "serinus demo --plain", "it installs; `make` is run by CI"),
    StandIn(r"make (\w+)", r"grep -q '^\1:' Makefile", "CI runs `make check`; a target must be there"),
    StandIn(r"git clone ", None, "the scene's folder is a clone"),
    StandIn(r"cd serinus\b", None, "the scene is in it"),
    StandIn(r"python3? -m venv ", None, "the tests run in one"),
    StandIn(r"(\S*/)?pip install ", "grep -q '^name = \"serinus\"' pyproject.toml", "no package index: CI installs it"),
    StandIn(r"(source|\.) \S*bin/activate", None, "`serinus` is on the path"),
    StandIn(
        r"(sudo )?(systemctl|systemd-\w+|journalctl) ", None, "there is no systemd: tests/test_docs.py reads the unit"
    ),
    StandIn(r"(sudo )?(docker|podman) ", None, "there is no Docker: tests of the image run its steps"),
    StandIn(r"(sudo )?apt-get ", None, "Debian's own"),
    StandIn(r"helm ", None, "no cluster: the chart's tests run `helm template` and `helm lint`"),
    StandIn(r"kubectl ", None, "no cluster: objects are held against Kubernetes' schemas by the chart's tests"),
    StandIn(r"(promtool|prometheus|nginx) ", None, "servers of others: tests of the alerts run promtool"),
    StandIn(r"(\S+/)?python bench/(\S+)", r"test -e bench/\2", "minutes of load: that the script is there"),
    StandIn(r"certbot |cloudflared ", None, "others' services"),
)


@dataclass(frozen=True, slots=True)
class Lasting:
    """A command that goes on until it is ended: it is left running once what it says matches."""

    pattern: str
    ready: str
    place: str | None = None  # who has it is ended first


LASTING = (
    Lasting(r"serinus serve\b", r"\bserving\b", place="proxy"),
    Lasting(r"serinus demo\b", r"Serinus answers on", place="proxy"),
    Lasting(r"serinus simulate\b|python -m proxy\.simulation\b", r"base_url="),
    Lasting(r"serinus top\b", r"."),
    Lasting(r"curl (?=.*-N).*/events\b", r""),
)

# Commands that only look, which are asked again until they show what the page does: it takes a moment to be there.
LOOKS = re.compile(r"serinus (status|(keys|clients|canary) list|canary show)\b|curl (?!.*-[Xd] )|tail |cat |grep ")

# Measuring takes as long as it is asked to; that the options are right shows in little time, too.
SHORTER = (
    (r"^(serinus bench [^#\n]*--duration) \S+", r"\1 1s"),
    (r"^(serinus bench (?!.*--(?:duration|requests))[^#\n]*[^#\s])", r"\1 --requests 2 --tokens 5"),
)


def shortened(command: str) -> str:
    for pattern, shorter in SHORTER:
        command = re.sub(pattern, shorter, command)
    return command


def stand_in(command: str) -> StandIn | None:
    return next((entry for entry in STAND_INS if re.match(entry.pattern, command)), None)


def lasting(command: str) -> Lasting | None:
    return next((entry for entry in LASTING if re.match(entry.pattern, command)), None)


def is_run(command: str) -> bool:
    """Whether it begins with a program that scenes run, past what it sets."""
    program = re.match(r"(?:\w+=\S* +)*([\w.-]+)", command)
    assigns = re.fullmatch(r"""\w+=(\S*|\$\(.*\)|"[^"]*"|'[^']*')(\s+#.*)?""", command)
    return bool(assigns) or (program is not None and program[1] in RUN)
