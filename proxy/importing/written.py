"""An imported configuration as the text of a file: what is to be known about it on top, then its sections.

PyYAML writes no comments, and a library that does would be one more to keep. Here all of them stand together at the
top, where they are read before the file is used and deleted after, so each section can be dumped by itself.
"""

import re
from textwrap import wrap
from typing import Any

import yaml
from yaml.emitter import ScalarAnalysis

from proxy.controlplane.document import quoted_like_us
from proxy.importing.remarks import Kind, Remark, of_kind

_WIDTH = 118
_TITLES = {
    Kind.TO_DO: "To do:",
    Kind.DROPPED: "Not converted:",
    Kind.CHANGED: "Otherwise than before:",
}
_SECTIONS = {
    "clients": "Who may call.",
    "upstreams": "Where providers are, and the keys for them.",
    "pools": "Who shares the requests of a model.",
    "routes": "Which models lead where. The first that matches decides.",
}


def written(settings: dict[str, Any], remarks: tuple[Remark, ...], file: str) -> str:
    head = [
        f"Made of {file} by `serinus import litellm`. It serves 127.0.0.1:8080, where LiteLLM's usual port is left",
        "alone: both can run side by side. Add `listen: 0.0.0.0:4000` to take its place.",
    ]
    for kind, title in _TITLES.items():
        said = [f"line {remark.line}: {remark.place}: {remark.text}" for remark in of_kind(remarks, kind)]
        head += ["", title, *(line for each in said for line in _item(each))] if said else []
    lines = [f"# {line}".rstrip() for line in head]
    for section, data in settings.items():
        lines += ["", f"# {_SECTIONS[section]}", _dumped({section: data})]
    return "\n".join(lines) + "\n"


def _item(text: str) -> list[str]:
    """A point of a list, in as many lines as it takes. No line break of the file's own gets out of the comment."""
    visible = "".join(letter if letter.isprintable() else "?" for letter in text)
    return wrap(f"- {visible}", _WIDTH - 2, subsequent_indent="  ", break_on_hyphens=False)


class _Dumper(yaml.SafeDumper):
    """Quotes what either YAML would read as something other than text, and indents lists below their names."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def analyze_scalar(self, scalar: str) -> ScalarAnalysis:
        """`env:NAME` needs no quotes in braces either; PyYAML gives them to whatever has a colon."""
        analysis = super().analyze_scalar(scalar)
        analysis.allow_flow_plain |= re.fullmatch(r"env:\w+", scalar) is not None
        return analysis

    def ignore_aliases(self, data: Any) -> bool:
        return True


quoted_like_us(_Dumper)


def _dumped(section: dict[str, Any]) -> str:
    text: str = yaml.dump(
        section, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=_WIDTH, allow_unicode=True
    )
    return text.rstrip("\n")
