"""What helm makes of the chart, by the values files in `values/`, each rendered once a process."""

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "serinus"
VALUES = Path(__file__).with_name("values")
NAMES = sorted(path.stem for path in VALUES.glob("*.yaml"))
_WHERE = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
HELM = shutil.which("helm", path=_WHERE)
KUBECTL = shutil.which("kubectl", path=_WHERE)
Objects = dict[tuple[str, str], dict[str, Any]]


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    assert HELM is not None
    return subprocess.run([HELM, *arguments], capture_output=True, text=True, check=False)


def template(*arguments: str) -> str:
    """All that is rendered, on top of the minimal values."""
    done = helm("template", "llm", str(CHART), "-n", "apps", "-f", str(VALUES / "minimal.yaml"), *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def objects(name: str) -> Objects:
    """By kind and name."""
    return parsed(template("-f", str(VALUES / f"{name}.yaml")))


def parsed(text: str) -> Objects:
    every = [found for found in yaml.safe_load_all(text) if found]
    by_name = {(found["kind"], found["metadata"]["name"]): found for found in every}
    assert len(by_name) == len(every), "two objects have one name"
    return by_name


def config_text(rendered: Objects) -> str:
    """The text of serinus.yaml."""
    (found,) = (item for (kind, _), item in rendered.items() if kind == "ConfigMap" and "serinus.yaml" in item["data"])
    return found["data"]["serinus.yaml"]


def workload(rendered: Objects) -> dict[str, Any]:
    (found,) = (item for (kind, _), item in rendered.items() if kind in ("Deployment", "StatefulSet"))
    return found


def pod(rendered: Objects) -> dict[str, Any]:
    return workload(rendered)["spec"]["template"]["spec"]
