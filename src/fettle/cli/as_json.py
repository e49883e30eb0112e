"""What --json prints: one strict JSON document on stdout, and nothing else."""

import json
from collections.abc import Mapping
from typing import Any

import click


def print_json(document: Mapping[str, Any]) -> None:
    click.echo(json.dumps(document, indent=2, allow_nan=False))
