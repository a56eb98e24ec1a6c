"""A YAML text as plain data that remembers the line of each of its parts.

PyYAML's constructors forget lines, let a second key silently win, and read `no`, `1:30` and `2026-01-01` as a truth
value, a number and a date. So only its parser and node graph are used here; data is built from the nodes with the few
types of YAML 1.2, and with bounds: a text of a kilobyte can stand for a gigabyte of aliases.
"""

import re
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.resolver import BaseResolver as Resolver

from proxy.controlplane.problems import ConfigInvalid, Path, Problem

# A configuration of ten thousand clients has some hundred thousand nodes.
NODES_MAX = 200_000
DEPTH_MAX = 40
_TAG = "tag:yaml.org,2002:"


class _Nodes(yaml.SafeLoader):
    """YAML 1.2's plain scalars instead of 1.1's, and no deeper than DEPTH_MAX."""

    depth = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        self.depth += 1
        if self.depth > DEPTH_MAX:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="nested too deeply", problem_mark=mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


_Nodes.yaml_implicit_resolvers = {}
# 18 digits: int() refuses thousands of them by an error of its own, and no setting needs more.
_SCALARS = (
    ("null", r"^(~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^[-+]?[0-9]{1,18}$", list("-+0123456789")),
    ("float", r"^[-+]?(\.[0-9]{1,18}|[0-9]{1,18}(\.[0-9]{0,18})?)([eE][-+]?[0-9]{1,3})?$", list("-+.0123456789")),
    ("merge", r"^<<$", ["<"]),
)


def quoted_like_us(kind: type[Resolver]) -> None:
    """Has a loader, or a dumper, take for numbers and the like what is taken for them here."""
    for name, pattern, first in _SCALARS:
        kind.add_implicit_resolver(_TAG + name, re.compile(pattern), first)


quoted_like_us(_Nodes)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a part of the document stands. `text` is what was written, for a scalar."""

    line: int
    key_line: int
    text: str | None = None


@dataclass(slots=True)
class Document:
    """`data` has None where nothing, or nothing usable, is written: `problems` says so, and `holes` where."""

    file: str
    data: Any = None
    places: dict[Path, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    holes: set[Path] = field(default_factory=set)

    def existing(self, path: Path) -> Path:
        """The longest beginning of the path that is in the document."""
        while path and path not in self.places:
            path = path[:-1]
        return path

    def line(self, path: Path) -> int | None:
        place = self.places.get(self.existing(path))
        return place.line if place else None

    def key_line(self, path: Path) -> int | None:
        place = self.places.get(self.existing(path))
        return place.key_line if place else None


def read(text: str, file: str, begin_with: str = "upstreams:, pools:, routes:") -> Document:
    """Raises ConfigInvalid where the text is no YAML at all; whatever else is wrong is in the document's problems.

    `begin_with`: what such a document has, for whoever has written nothing yet.
    """
    document = Document(file)
    try:
        root = _Nodes(text).get_single_node()
    except yaml.YAMLError as error:
        raise ConfigInvalid((_syntax_problem(error, text, file),)) from None
    if root is None or root.tag == _TAG + "null":
        raise ConfigInvalid((Problem((), None, f"nothing is written in it: begin with {begin_with}", file),))
    if not isinstance(root, MappingNode):
        problem = Problem((), root.start_mark.line + 1, f"not a mapping: begin with {begin_with}", file)
        raise ConfigInvalid((problem,))
    document.data = _Builder(document).build(root, (), root.start_mark.line + 1)
    return document


_IN_OTHER_WORDS = (
    ("'\\t'", "a tab: indent with blanks"),
    ("mapping values are not allowed", "a ': ' in the middle of a value, or a wrong indentation: quote or align it"),
    ("could not find expected ':'", "a line that is neither 'name: value' nor '- value'"),
    ("expected ',' or '}'", "in { }: a comma is missing before this, or a value with ': ' in it is not in quotes"),
    ("expected ',' or ']'", "in [ ]: a comma is missing before this, or a value with ': ' in it is not in quotes"),
    ("expected <block end>", "a line that is indented differently from its neighbours"),
    ("expected alphabetic or numeric", "a '*' or '&' begins an alias or its anchor: put the value in quotes"),
    ("undefined alias", "a '*' begins an alias, and no anchor has this name: put the value in quotes"),
)


def _syntax_problem(error: yaml.YAMLError, text: str, file: str) -> Problem:
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return Problem((), line, "not valid YAML: a character that must not be in it; was it saved as UTF-8?", file)
    mark = getattr(error, "problem_mark", None)
    problem = str(getattr(error, "problem", None) or "it cannot be read")
    if "but found another document" in problem:
        return Problem((), mark.line + 1 if mark else None, "a second document begins: leave one, without '---'", file)
    if "end of stream" in problem and "quoted scalar" in str(getattr(error, "context", "")):
        mark, problem = getattr(error, "context_mark", mark), "a quote is opened here and never closed"
    if "<stream end>" in problem and "flow" in str(getattr(error, "context", "")):
        mark, problem = getattr(error, "context_mark", mark), "a bracket is opened here and never closed"
    problem = next((ours for theirs, ours in _IN_OTHER_WORDS if theirs in problem), _discreet(problem))
    column = f" (column {mark.column + 1})" if mark else ""
    return Problem((), mark.line + 1 if mark else None, f"not valid YAML: {problem}{column}", file)


def _discreet(problem: str) -> str:
    """What PyYAML quotes may be a secret that was written without quotes; its own words are in <angle brackets>."""
    return re.sub(r"'([^']*)'", lambda quoted: quoted[0] if len(quoted[1]) < 4 or "<" in quoted[1] else "'…'", problem)


class _TooLargeError(Exception):
    pass


class _Builder:
    """Builds data out of nodes, once for each place that an alias brings a node to."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._open: set[int] = set()
        self._count = 0

    def build(self, node: Node, path: Path, key_line: int) -> Any:
        try:
            return self._value(node, path, key_line)
        except _TooLargeError:
            message = f"more than {NODES_MAX} values once aliases are written out: use fewer of them"
            raise ConfigInvalid((Problem((), None, message, self._document.file),)) from None

    def _value(self, node: Node, path: Path, key_line: int) -> Any:
        self._spend()
        line = node.start_mark.line + 1 if isinstance(node, ScalarNode) else key_line
        text = node.value if isinstance(node, ScalarNode) else None
        self._document.places[path] = Place(line, key_line, text)
        if id(node) in self._open:
            return self._hole(path, "an alias (*) to something that it is itself a part of")
        self._open.add(id(node))
        try:
            match node:
                case ScalarNode():
                    return self._scalar(node, path)
                case SequenceNode(tag="tag:yaml.org,2002:seq"):
                    return [
                        self._value(item, (*path, index), item.start_mark.line + 1)
                        for index, item in enumerate(node.value)
                    ]
                case MappingNode(tag="tag:yaml.org,2002:map"):
                    return self._mapping(node, path)
            return self._hole(path, "a YAML tag (!) means nothing here: remove it")
        finally:
            self._open.discard(id(node))

    def _spend(self) -> None:
        self._count += 1
        if self._count > NODES_MAX:
            raise _TooLargeError

    def _scalar(self, node: ScalarNode, path: Path) -> Any:
        text: str = node.value
        match node.tag.removeprefix(_TAG):
            case "str" | "merge":
                return text
            case "bool" if text.lower() in ("true", "false"):
                return text.lower() == "true"
            case "int" if re.fullmatch(r"[-+]?[0-9]{1,18}", text):
                return int(text)
            case "float" if re.fullmatch(r"[-+.0-9eE]{1,50}", text):
                return self._float(text)
            case "null":
                return self._hole(path, "nothing is written here: give it a value, or remove the line")
        return self._hole(path, "a YAML tag (!) means nothing here: remove it")

    @staticmethod
    def _float(text: str) -> float | str:
        try:
            return float(text)
        except ValueError:
            return text

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node, own in self._pairs(node, path, set()):
            key = key_node.value
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, ScalarNode) or key_node.tag != _TAG + "str":
                self._problem(path, "a key that is not text: put it in quotes", line)
            elif key not in values:
                values[key] = self._value(value_node, (*path, key), line)
            elif own:
                first = self._document.places[(*path, key)].key_line
                self._problem((*path, key), f"here for a second time, first on line {first}: leave one", line)
        return values

    def _pairs(self, node: MappingNode, path: Path, merging: set[int]) -> list[tuple[Node, Node, bool]]:
        """The mapping's own pairs, then those that `<<` brings, the nearest first."""
        own, merged = [], []
        for key_node, value_node in node.value:
            self._spend()
            if key_node.tag == _TAG + "merge":
                merged += self._merged(value_node, path, merging | {id(node)})
            else:
                own.append((key_node, value_node, not merging))
        return own + merged

    def _merged(self, node: Node, path: Path, merging: set[int]) -> list[tuple[Node, Node, bool]]:
        pairs: list[tuple[Node, Node, bool]] = []
        for source in node.value if isinstance(node, SequenceNode) else [node]:
            if not isinstance(source, MappingNode) or id(source) in merging:
                self._problem(path, "<< takes an alias of a mapping, or a list of them", source.start_mark.line + 1)
            else:
                pairs += self._pairs(source, path, merging)
        return pairs

    def _hole(self, path: Path, message: str) -> None:
        self._document.holes.add(path)
        self._problem(path, message)

    def _problem(self, path: Path, message: str, line: int | None = None) -> None:
        line = line or self._document.line(path)
        self._document.problems.append(Problem(path, line, message, self._document.file))
