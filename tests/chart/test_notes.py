"""What `helm install` tells whoever ran it."""

from functools import cache

import pytest

from tests.chart.rendering import CHART, VALUES, helm


@cache
def notes(name: str) -> str:
    files = ["-f", str(VALUES / "minimal.yaml"), "-f", str(VALUES / f"{name}.yaml")]
    done = helm("install", "llm", str(CHART), "-n", "apps", *files, "--dry-run=client")
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("\nNOTES:\n")[2]


BASE_URLS = {
    "minimal": ["http://llm-serinus.apps.svc:8080/v1"],
    "tls": ["https://llm-serinus.apps.svc:443/v1"],
    "open": ["http://llm.apps.svc:8080/v1", "http://llm.apps.svc:8080"],
    "ingress": ["http://llm-serinus.apps.svc:8080/v1", "https://llm.example.com/v1"],
    "httproute": ["http://llm-serinus.apps.svc:8080/v1", "llm.example.com/v1"],
}


@pytest.mark.parametrize("name", BASE_URLS)
def test_base_url_is_told(name: str) -> None:
    assert set(BASE_URLS[name]) <= {line.strip() for line in notes(name).splitlines()}


WARNINGS = {
    "2 replicas, which know nothing of each other": "minimal",
    "up to 50 replicas, which know nothing of each other": "autoscaling",
    "`limits` of upstreams and keys hold in each replica. Divide the provider's by 50": "fifty",
    "`limits` of clients hold in each replica: together they allow 50 times as much": "fifty",
    "Each replica judges canaries by its own requests": "fifty",
    "set service.sessionAffinity: ClientIP": "minimal",
    "state_dir is no volume": "minimal",
    "nobody is served in between at each update": "statefulset",
    "Whoever reaches the service uses your keys": "open",
    "Variables of the environment do not change in a running pod": "env-keys",
}


@pytest.mark.parametrize("warning", WARNINGS)
def test_what_may_surprise_is_told(warning: str) -> None:
    assert warning in notes(WARNINGS[warning])


@pytest.mark.parametrize(
    ("name", "warning"),
    [
        ("statefulset", "replicas, which know nothing"),
        ("statefulset", "state_dir is no volume"),
        ("autoscaling", "sessionAffinity"),
        ("minimal", "Variables of the environment"),
        ("minimal", "`limits`"),
    ],
)
def test_what_does_not_hold_is_not_told(name: str, warning: str) -> None:
    assert warning not in notes(name)


def test_command_to_look_at_it_has_the_token_that_is_there() -> None:
    command = "kubectl -n apps exec statefulset/llm-serinus -- serinus status --token file:/run/secrets/llm/admin-token"
    assert command in notes("statefulset")
