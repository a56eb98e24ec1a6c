"""`serinus schema`: what a configuration may contain, for editors."""

import json

import click

from proxy.model.settings import Settings


@click.command()
def schema() -> None:
    """Print the configuration's JSON Schema.

    Editors that speak YAML's language server complete and check a file that begins with
    `# yaml-language-server: $schema=serinus.schema.json`.
    """
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    click.echo(json.dumps(dialect | Settings.model_json_schema(), indent=2))
