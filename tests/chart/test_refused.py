"""Wrong values are refused before anything reaches a cluster, by a sentence that says what would be right."""

from pathlib import Path

import pytest

from tests.chart.rendering import CHART, VALUES, helm

OTHER_KEY = "{upstreams: {openai: {keys: [{name: main, value: %s}]}}}"
LIMITED = "{name: app, key: 'file:/run/secrets/llm/client-key', limits: {concurrent: 4}}"
CANARY = """\
  pools: {chat-next: {members: [{upstream: openai, model: gpt-5}]}}
  routes: [{prefix: /v1, pool: chat, canary: next}]
  canaries: {next: {baseline: chat, canary: chat-next, steps: [{set_weight: 5}, {set_weight: 100}]}}
"""
# What no schema knows: the chart says it.
CONTRADICTORY = {
    "image: {repository: ''}": "image.repository is empty: build the image, push it, and name where it is",
    "config: {listen: 0.0.0.0:80}": "config.listen is the chart's to set: remove it, and use ports.proxy",
    "config: {state_dir: /data}": "config.state_dir is the chart's to set: remove it, and use persistence",
    "config: {admin: {listen: 0.0.0.0:9090}}": "the chart's to set: remove it, and use ports.admin",
    "config: {admin: {tls: {cert: a, key: b}}}": "config.admin.tls is not for Kubernetes",
    "config: {admin: {tokens: []}}": "write tokens: [{name: ops, value: file:/run/secrets/SECRET/KEY}]",
    "config: {clients: []}": "config.clients is empty: list who may call, or set config.allow_anonymous: true",
    "ports: {proxy: 9090}": "ports.proxy and ports.admin are both 9090: choose another one",
    f"config: {OTHER_KEY % 'sk-secret'}": "config.upstreams.openai.keys[main] would stand in a ConfigMap in plain text",
    f"config: {OTHER_KEY % 'env:OPENAI_KEY'}": "is env:OPENAI_KEY, which no pod has: add it to secretEnv",
    f"config: {OTHER_KEY % 'file:/run/secrets/others/key'}": "no such Secret is mounted: add others to secretFiles",
    f"config: {OTHER_KEY % 'file:secrets/key'}": "beside the configuration, which is no place for secrets",
    "config: {upstreams: {openai: {headers: {X-Goog-Api-Key: AIza}}}}": (
        "config.upstreams.openai.headers.X-Goog-Api-Key would stand in a ConfigMap in plain text: take it out, and "
        "write auth: {header: X-Goog-Api-Key} and a key under keys"
    ),
    f"config: {{clients: [{LIMITED}]}}": (
        "config.clients[app].limits hold in each replica by itself, so that 2 of them allow 2 times as much: "
        "set replicaCount: 1, or divide them by 2 and set acknowledge.limitsPerReplica: true"
    ),
    f"replicaCount: 3\nconfig:\n{CANARY}": "config.canaries.next is judged by each of 3 replicas for itself",
    f"autoscaling: {{enabled: true}}\nreplicaCount: 1\nconfig:\n{CANARY}": "is judged by each of 10 replicas",
    "persistence: {enabled: true}": "share one state_dir, which one process holds at a time: set kind: StatefulSet",
    "autoscaling: {enabled: true, minReplicas: 20}": "autoscaling.minReplicas is 20 and maxReplicas 10",
    "autoscaling: {enabled: true, cpuPercent: 0}": "autoscaling goes by nothing: set cpuPercent or inflightPerPod",
    "autoscaling: {enabled: true}\nresources: {requests: {cpu: null}}": "a part of resources.requests.cpu",
    "serviceMonitor: {enabled: true}\nnetworkPolicy: {enabled: true}": "name Prometheus' namespace in network",
    "ingress: {enabled: true}": "ingress.hosts is empty: name the host under which callers come",
    "httpRoute: {enabled: true}": "httpRoute.parentRefs is empty: name the gateway",
    "tls: {clientCaKey: ca.crt}": "tls.clientCaKey is a key of tls.secretName, which is empty: name the Secret",
}
# What the schema knows: Helm says where it is, and what is wrong there.
OF_NO_SUCH_FORM = {
    "replicas: 3": "at '': additional properties 'replicas' not allowed",
    "image: {repo: x}": "at '/image': additional properties 'repo' not allowed",
    "replicaCount: two": "at '/replicaCount': got string, want integer",
    "kind: DaemonSet": "at '/kind': value must be one of 'Deployment', 'StatefulSet'",
    "ports: {proxy: 80}": "at '/ports/proxy': minimum: got 80, want 1,024",
    "config: {rout: []}": "at '/config': additional properties 'rout' not allowed",
    "config: {routes: null}": "at '/config/routes': got null, want array",
    "config: {upstreams: {openai: {timeout: 5s}}}": "at '/config/upstreams/openai': additional properties 'timeout'",
    "config: {drain_timeout: 30}": "at '/config/drain_timeout': got number, want string",
    "config: {pools: {chat: {retry: {on: [500]}}}}": "at '/config/pools/chat/retry/true/0': value must be one of",
    "tolerations: [{key: a, effects: NoSchedule}]": "at '/tolerations/0': additional properties 'effects' not allowed",
    "extraVolumes: [{name: a, emptydir: {}}]": "at '/extraVolumes/0': additional properties 'emptydir' not allowed",
    "secretEnv: [{name: A-B, secret: s, key: k}]": "at '/secretEnv/0/name': 'A-B' does not match pattern",
    "resources: {request: {cpu: 1}}": "at '/resources': additional properties 'request' not allowed",
}


def refused(values: str, folder: Path) -> str:
    file = folder / "values.yaml"
    file.write_text(values)
    done = helm("template", "llm", str(CHART), "-f", str(VALUES / "minimal.yaml"), "-f", str(file))
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr


@pytest.mark.parametrize("values", CONTRADICTORY)
def test_contradictory_values_are_refused(values: str, tmp_path: Path) -> None:
    said = refused(values, tmp_path)
    assert "these values cannot be installed:" in said
    assert CONTRADICTORY[values] in said


@pytest.mark.parametrize("values", OF_NO_SUCH_FORM)
def test_values_of_no_such_form_are_refused(values: str, tmp_path: Path) -> None:
    assert OF_NO_SUCH_FORM[values] in refused(values, tmp_path)


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    said = refused("image: {repository: ''}\nconfig: {clients: []}\ntls: {clientCaKey: ca.crt}\n", tmp_path)
    assert said.count("\n  - ") == 3


def test_secret_is_not_repeated_in_the_refusal(tmp_path: Path) -> None:
    assert "sk-secret" not in refused(f"config: {OTHER_KEY % 'sk-secret'}", tmp_path)


def test_chart_without_values_says_what_it_needs() -> None:
    done = helm("template", "llm", str(CHART))
    assert "at '/config': missing properties 'upstreams', 'pools', 'routes'" in done.stderr
