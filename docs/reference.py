"""Writes configuration.md and commands.md from the settings and the commands: `make reference`.

What a field or an option means is said once, where it is defined: editors show it (`serinus schema`), `--help` prints it,
and these two pages put it in order. They are committed, so that they can be read without building anything; a test fails
while they are not what this would write.
"""

import inspect
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from proxy.cli import main as serinus
from proxy.controlplane.differences import AT_START
from proxy.model.address import Address
from proxy.model.quantities import DURATION_PATTERN, NAME_PATTERN, SIZE_PATTERN
from proxy.model.settings import Settings

HERE = Path(__file__).parent
Schema = Mapping[str, Any]

CONFIGURATION = """\
# Configuration reference

Every setting, as `serinus schema` has it; `make reference` writes this page. [config/full.yaml](../config/full.yaml) shows all
of them in one file, with the defaults where there are any. Editors that speak YAML's language server complete and explain
them with

```console
$ serinus schema > serinus.schema.json
```

and a file that begins with `# yaml-language-server: $schema=serinus.schema.json`.

- A **duration** has a unit: `250ms`, `30s`, `5m`, `2h`, `1d`. A **size** too: `64KiB`, `20MiB`, `1GiB`. A **percentage**: `5%`.
- An **address** is a host and a port, `127.0.0.1:8080` or `[::1]:8080`; `0.0.0.0` is every address of the machine.
- A **name** has up to 64 letters, digits, `.`, `_` and `-`, a letter or digit first.
- A **secret** is `env:NAME`, `file:/path` or `sealed:v1:…` ([secrets](operating.md#secrets)); as plain text it works, with a
  warning.
- A **glob** has `*` for anything, `?` for one character.
- `NAME` in a place stands for a name of your own, `[]` for each entry of a list.
- At the top, keys that begin with `x-` are left alone: a place for YAML anchors. Any other field that is not here is an error.

A changed file is put in force while Serinus runs ([reload.md](reload.md)). What is marked *at start* waits for a restart, and is
named until it comes.
"""

COMMANDS = """\
# Commands

What `serinus COMMAND --help` says; `make reference` writes this page.

## Exit codes

| code | meaning |
|---|---|
| 0 | done. `serve` and `demo`: ended by a signal, or by the end that was asked for |
| 1 | not done: the configuration is not valid, nobody answers, a value was refused, a port is taken. Standard error says which |
| 2 | asked wrongly: an unknown option, a missing argument |
| 3 | done, and what was asked about is so: `check --diff` found a difference, `canary simulate` ended in a rollback |

## Asking a running proxy

Commands that ask the admin API take these as well:

"""


def configuration() -> str:
    schema = Settings.model_json_schema()
    return CONFIGURATION + "".join(_section(schema, "", schema["$defs"]))


def _section(record: Schema, place: str, known: Schema) -> Iterator[str]:
    """A record's table, and those of the records in it."""
    title = f"`{place}`" if place else "The top level"
    about = record.get("description", "") if place else "The sections of a file, and what stands beside them."
    yield f"\n## {title}\n\n{about}\n\n| setting | what it is | default | meaning |\n|---|---|---|---|\n"
    inner = []
    for name, field in record.get("properties", {}).items():
        path = f"{place}.{name}" if place else name
        found = _record_in(field, path, known)
        inner += [] if found is None else [found]
        yield f"| `{name}` | {_kind(field, path, known)} | {_default(record, name, field)} | {_meaning(field, path)} |\n"
    for schema, path in inner:
        yield from _section(schema, path, known)


def _record_in(field: Schema, path: str, known: Schema) -> tuple[Schema, str] | None:
    """The record that a field holds, or holds many of, and where."""
    if "$ref" in field:
        return known[field["$ref"].rpartition("/")[2]], path
    if "items" in field:
        return _record_in(field["items"], f"{path}[]", known)
    if "patternProperties" in field:
        return _record_in(next(iter(field["patternProperties"].values())), f"{path}.NAME", known)
    return next((found for part in field.get("anyOf", ()) if (found := _record_in(part, path, known))), None)


def _kind(field: Schema, path: str, known: Schema) -> str:
    """What one writes there, in words."""
    if "$ref" in field:
        return f"[a mapping](#{_anchor(path)})"
    if "anyOf" in field:
        return ", or ".join(dict.fromkeys(_kind(part, path, known) for part in field["anyOf"]))
    if "items" in field:
        return f"a list, each {_kind(field['items'], f'{path}[]', known)}"
    if field.get("type") == "object":
        values = [*field.get("patternProperties", {}).values(), field.get("additionalProperties")]
        return f"names, each with {_kind(values[0], f'{path}.NAME', known)}"
    return _scalar(field)


_PATTERNS = {
    DURATION_PATTERN: "a duration",
    f"{DURATION_PATTERN}|^none$": "a duration or `none`",
    SIZE_PATTERN: "a size",
}
_PATTERNS |= {NAME_PATTERN: "a name", "^[0-9]{1,3}%$": "a percentage"}
_PATTERNS |= {Address.json_schema["pattern"]: "an address"}
_FORMATS = {"secret": "a secret", "path": "a path"}


def _scalar(field: Schema) -> str:
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        *most, last = (f"`{value}`" for value in field["enum"])
        return f"{', '.join(most)} or {last}"
    match field.get("type"):
        case "boolean":
            return "`true` or `false`"
        case "integer" | "number" as kind:
            return ("a whole number" if kind == "integer" else "a number") + _bounds(field)
    if "examples" in field and field.get("pattern") not in _PATTERNS and "format" not in field:
        return f"a text such as `{field['examples'][0]}`"
    return _FORMATS.get(field.get("format", "")) or _PATTERNS.get(field.get("pattern", ""), "a text")


def _bounds(field: Schema) -> str:
    least, most = field.get("minimum"), field.get("maximum")
    if least is not None and most is not None:
        return f", {least:g} to {most:g}"
    return f", {least:g} or more" if least is not None else ""


def _default(record: Schema, name: str, field: Schema) -> str:
    if name in record.get("required", ()):
        return "required"
    match field.get("default"):
        case None:
            return ""
        case bool() as switch:
            return f"`{str(switch).lower()}`"
        case [] | {}:
            return "none"
        case list() as entries:
            return ", ".join(f"`{entry['name'] if isinstance(entry, dict) else entry}`" for entry in entries)
        case value:
            return f"`{value}`"


def _meaning(field: Schema, path: str) -> str:
    text = field.get("description", "").replace("|", "\\|").replace("*", "\\*")
    if path == "listen":
        return f"{text} *At start*, with several `workers`."
    return f"{text} *At start.*" if path in AT_START else text


def _anchor(path: str) -> str:
    """As GitHub makes it of a heading."""
    return "".join(letter for letter in path.lower() if letter.isalnum() or letter in "_-")


def commands() -> str:
    asking = serinus.get_command(click.Context(serinus), "status")
    shared = [option for option in asking.params if ADMIN_OPTIONS.intersection(option.opts)]
    return COMMANDS + _options(shared) + "".join(_command(serinus, "serinus"))


ADMIN_OPTIONS = {"--admin", "--token", "--cacert", "--cert", "--key"}


def _command(command: click.Command, name: str) -> Iterator[str]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for each in command.list_commands(context):
            yield from _command(command.get_command(context, each), f"{name} {each}")
        return
    context = click.Context(command, info_name=name)
    arguments = " ".join(parameter.make_metavar(context) for parameter in command.params if _is_argument(parameter))
    own = [parameter for parameter in command.params if not _is_argument(parameter)]
    asks = any("--admin" in option.opts for option in own)
    own = [option for option in own if not (asks and ADMIN_OPTIONS.intersection(option.opts))]
    yield f"\n## `{' '.join(filter(None, (name, arguments)))}`\n\n{_help(command)}\n"
    if asks:
        yield "\nIt asks the [admin API](#asking-a-running-proxy).\n"
    if own:
        yield "\n" + _options(own)


def _is_argument(parameter: click.Parameter) -> bool:
    return parameter.param_type_name == "argument"


def _help(command: click.Command) -> str:
    """Its help, whose line breaks are of its source."""
    text = inspect.cleandoc(command.help or "").replace("\b\n", "")
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def _options(options: list[click.Parameter]) -> str:
    rows = ["| option | meaning |\n|---|---|\n"]
    for option in options:
        written, meaning = option.get_help_record(click.Context(click.Command("serinus"))) or ("", "")
        meaning = " ".join(meaning.split()).replace("|", "\\|").replace("*", "\\*")
        rows.append(f"| `{written.replace('|', chr(92) + '|')}` | {meaning} |\n")
    return "".join(rows)


def main() -> None:
    pages = {HERE / "configuration.md": configuration(), HERE / "commands.md": commands()}
    if "--check" in sys.argv[1:]:
        stale = [page.name for page, text in pages.items() if not page.exists() or page.read_text() != text]
        sys.exit(f"{' and '.join(stale)}: not what is there any more: run `make reference`" if stale else 0)
    for page, text in pages.items():
        page.write_text(text)


if __name__ == "__main__":
    main()
