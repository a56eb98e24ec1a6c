"""Writes what in the chart follows from elsewhere: `values.schema.json` and `README.md`. `make chart` runs it.

The configuration is a part of the values, so that its schema is a part of theirs: a misspelt name in it is refused by
Helm, before anything reaches the cluster. That schema is Serinus' own (`serinus schema`), put in here. Likewise what is
handed to Kubernetes as it is (tolerations, volumes, …) has Kubernetes' definitions. What is left is `own.schema.yaml`.

The README's table is what `values.yaml` says, comments and all. helm-docs does such a thing, but is no Python.
"""

import json
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from proxy.model.settings import Settings

CHARTS = Path(__file__).parent
CHART = CHARTS / "serinus"
Json = dict[str, Any]


def main() -> None:
    for file, text in {CHART / "values.schema.json": schema(), CHART / "README.md": readme()}.items():
        file.write_text(text)


# --- the schema ------------------------------------------------------------------------------------------------------


def schema() -> str:
    own = yaml.safe_load((CHARTS / "own.schema.yaml").read_text())
    definitions = own.pop("definitions") | _of_serinus() | _of_kubernetes()
    used = {name: definitions[name] for name in sorted(_reachable(own, definitions))}
    # draft-07 is what the validators of both Helm 3 and Helm 4 know.
    whole = {"$schema": "http://json-schema.org/draft-07/schema#", **own, "definitions": used}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def _of_serinus() -> Json:
    """The definitions of `serinus schema`, and its top as one more of them."""
    top = Settings.model_json_schema()
    definitions = _adopted(top.pop("$defs") | {"Settings": top}, "serinus.{}".format)
    # What YAML 1.1, and so Helm, makes of the name `on`. The chart gives it back its name.
    retry = definitions["serinus.Retry"]["properties"]
    retry["true"] = retry["on"]
    return definitions


def _of_kubernetes() -> Json:
    newest = kubernetes_validate.latest_version()
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{newest}-local-strict"
    definitions = json.loads((folder / "_definitions.json").read_text())["$defs"]
    return _adopted(definitions, lambda name: "k8s." + name.removeprefix("io.k8s.api."))


def _adopted(definitions: Json, renamed: Callable[[str], str]) -> Json:
    """Another schema's definitions, by their names here, without what no validator needs."""

    def within(part: Any) -> Any:
        match part:
            case {"$ref": str(reference)}:
                return {"$ref": "#/definitions/" + renamed(reference.removeprefix("#/$defs/"))}
            case dict():
                # A mapping is kept whatever its name: it may be a property that is called `description`.
                return {name: within(value) for name, value in part.items() if isinstance(value, dict) or _needed(name)}
            case list():
                return [within(value) for value in part]
            case _:
                return part

    return {renamed(name): within(part) for name, part in definitions.items()}


def _needed(name: str) -> bool:
    return name not in ("description", "default", "examples") and not name.startswith("x-kubernetes-")


def _reachable(own: Json, definitions: Json) -> set[str]:
    """The names of the definitions that are used, by themselves or by others."""
    found: set[str] = set()
    asked = set(_references(own))
    while asked:
        name = asked.pop()
        found.add(name)
        asked |= set(_references(definitions[name])) - found
    return found


def _references(part: Any) -> Iterator[str]:
    match part:
        case {"$ref": str(reference)}:
            yield reference.removeprefix("#/definitions/")
        case dict():
            for value in part.values():
                yield from _references(value)
        case list():
            for value in part:
                yield from _references(value)


# --- the README ------------------------------------------------------------------------------------------------------


def readme() -> str:
    template = (CHARTS / "README.template.md").read_text()
    rows = [f"| `{name}` | `{default}` | {said} |" for name, default, said in described()]
    return template.replace("<!-- values -->", "\n".join(["| value | default | what it is |", "|---|---|---|", *rows]))


def described() -> list[tuple[str, str, str]]:
    """Name, default and comment of each value that has a comment."""
    text = (CHART / "values.yaml").read_text()
    lines = text.splitlines()
    top = yaml.compose(text)
    return list(_commented(top, lines, ""))


def _commented(node: Any, lines: list[str], prefix: str) -> Iterator[tuple[str, str, str]]:
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        comment = _comment_above(lines, key.start_mark.line)
        if comment:
            default = json.dumps(yaml.safe_load(yaml.serialize(value)), ensure_ascii=False)
            yield name, default.replace("|", "\\|"), comment.replace("|", "\\|")
        elif isinstance(value, yaml.MappingNode):
            yield from _commented(value, lines, f"{name}.")
        else:
            raise ValueError(f"values.yaml: {name} has no comment above it")


def _comment_above(lines: list[str], line: int) -> str:
    comment: list[str] = []
    while line and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        comment.insert(0, lines[line].lstrip().removeprefix("#").strip())
    return " ".join(comment)


if __name__ == "__main__":
    main()
