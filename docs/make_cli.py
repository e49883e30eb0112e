"""Writes docs/cli.md from the commands and the schema themselves: python docs/make_cli.py"""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import click

from fettle.cli.main import cli

HEAD = """# The command line

Made by `python docs/make_cli.py`; do not edit it by hand.

Every command that reads or writes studies takes `--storage`; every command takes `--json`, and then standard output
holds one JSON document and nothing else (progress and messages go to standard error). The documents fit the schemas
in `fettle/schemas/`: `answer.json` (`serve`, `run`, `resume`, `best`, `show`), `list.json`,
`measure.json`, `explain.json`, `collect.json` (`meta collect`), `meta_add.json`, `meta_list.json`, `meta_remove.json`,
`meta_train.json`, `meta_evaluate.json`, `error.json`.

| exit code | meaning |
| --- | --- |
| 0 | an answer |
| 1 | no feasible answer, or a promise that does not hold |
| 2 | bad input: one message that says what to do; nothing that was stored is touched |
| 130 | interrupted; `fettle resume STUDY` goes on |
"""


def page() -> str:
    parts = [
        HEAD,
        *(part for name in sorted(cli.commands) for part in _commands(name, cli.commands[name])),
        _experiment(),
    ]
    return "\n".join(parts)


def _commands(name: str, command: click.Command) -> list[str]:
    """A command, or a group and the commands in it."""
    if not isinstance(command, click.Group):
        return [_command(name, command)]
    head = f"## fettle {name}\n\n" + " ".join((command.help or "").split()) + "\n"
    return [
        head,
        *(p for inner in sorted(command.commands) for p in _commands(f"{name} {inner}", command.commands[inner])),
    ]


def _command(name: str, command: click.Command) -> str:
    arguments = [str(p.name).upper() for p in command.params if isinstance(p, click.Argument)]
    usage = " ".join(["fettle", name, *arguments, "[OPTIONS]"])
    lines = [f"## fettle {name}\n", " ".join((command.help or "").split()) + "\n", f"    {usage}\n"]
    lines += ["| option | meaning | default |", "| --- | --- | --- |"]
    for option in command.params:
        if isinstance(option, click.Option):
            lines.append(f"| {_names(option)} | {_cell(option.help or '')} | {_default(option)} |")
    return "\n".join(lines) + "\n"


def _names(option: click.Option) -> str:
    kind = option.type
    shown = "|".join(map(str, kind.choices)) if isinstance(kind, click.Choice) else kind.name.upper()
    taken = "" if option.is_flag else f" {option.metavar or shown}"
    return f"`{_cell(', '.join(option.opts) + taken)}`" + (" (repeatable)" if option.multiple else "")


def _default(option: click.Option) -> str:
    if option.required:
        return "required"
    return f"`{option.default}`" if option.show_default else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _experiment() -> str:
    schema = json.loads(files("fettle.schemas").joinpath("experiment.json").read_text())
    lines = [
        "## Experiment files\n",
        "What `fettle run` reads: YAML, checked against `fettle/schemas/experiment.json`. Relative paths are taken",
        "from the file's own folder. `examples/serve-digits.yaml` is one.\n",
        "| key | meaning |",
        "| --- | --- |",
    ]
    lines += _keys(schema["properties"], set(schema["required"]), "")
    return "\n".join(lines) + "\n"


def _keys(properties: dict[str, Any], required: set[str], prefix: str) -> list[str]:
    lines = []
    for key, form in properties.items():
        said = form.get("description") or form.get("title", "")
        more = " Required." if key in required else ""
        more += f" Default: `{form['default']}`." if "default" in form else ""
        lines.append(f"| `{prefix}{key}` | {_cell(said)}{more} |")
        if key == "command" and not prefix:
            lines += _keys(form["properties"], set(form["required"]), "command.")
    return lines


if __name__ == "__main__":
    (Path(__file__).parent / "cli.md").write_text(page(), encoding="utf-8")
