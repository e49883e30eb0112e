"""Target `command`: any HTTP server that a command line starts.

    myserver --port {port} --threads {threads} --model {model}

The template is split as a shell would, then `{name}` is replaced in each word; no value ever passes a shell.
Known names: `port`, `model` (the model file's path) and every parameter of the space by its full path. A word
that names a parameter which is inactive in a trial is left out. The space comes from a YAML or JSON file:

    space:
      threads: {int: [1, 8]}
      mode: {categorical: [fast, safe]}
      where: ["threads <= 4"]
    defaults: {threads: 1, mode: safe}     # optional; the baseline
    hot:                                   # optional; knobs that change without a restart
      knobs: [mode]
      path: /settings                      # answers 200 once they are in force
      body: '{"mode": "{mode}"}'
"""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from fettle.core.errors import InvalidInput
from fettle.core.serving import Launch, Machine, Model, Request, Tensors
from fettle.core.space import Choice, Float, Group, Int, Params, Space
from fettle.problems.serve import codec

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][\w.]*)\}")
OWN_NAMES = ("port", "model")
Expect = Literal["any", "json", "oip"]


@dataclass(frozen=True, slots=True)
class Hot:
    """Knobs that one request sets on the running server; `{name}` is replaced in its path and body. A fresh server gets
    them by its command line, as all others."""

    knobs: tuple[str, ...]
    path: str
    body: str = ""
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})

    @classmethod
    def read(cls, form: Any) -> "Hot":
        """Raises InvalidInput."""
        hint = "expected hot: {knobs: [name, ...], path: /settings, body: '...', method: POST, headers: {...}}"
        if not isinstance(form, Mapping) or not {"knobs", "path"} <= form.keys():
            raise InvalidInput(f"hot: expected at least knobs and path, got {form!r}", hint)
        knobs, texts = form["knobs"], {k: v for k, v in form.items() if k not in ("knobs", "headers")}
        if not isinstance(knobs, list) or not knobs or not all(isinstance(knob, str) for knob in knobs):
            raise InvalidInput(f"hot: knobs: expected a list of names, got {knobs!r}", hint)
        if wrong := [key for key, text in texts.items() if not isinstance(text, str)]:
            raise InvalidInput(f"hot: {wrong[0]}: expected text, got {texts[wrong[0]]!r}", hint)
        headers = form.get("headers", {})
        if not isinstance(headers, Mapping) or not all(isinstance(x, str) for pair in headers.items() for x in pair):
            raise InvalidInput(f"hot: headers: expected name: text, got {headers!r}", hint)
        try:
            return cls(**{**form, "knobs": tuple(knobs)})
        except TypeError as error:
            raise InvalidInput(f"hot: {error}", hint) from error

    def filled(self, params: Params) -> Request:
        return Request(self.method, _put(self.path, params), self.headers, _put(self.body, params).encode())

    @property
    def named(self) -> set[str]:
        """Knobs that the request has a place for."""
        return {*_PLACEHOLDER.findall(self.path), *_PLACEHOLDER.findall(self.body)}


@dataclass(frozen=True, slots=True)
class Command:
    """command: the template. ready: path that answers 200 once it serves. body: None sends the model's inputs as
    Open Inference Protocol tensors, otherwise these bytes are sent every time. expect: what a 200's body must be:
    "any" (not empty), "json", or "oip" (tensors, which are checked). default_params: the baseline, {} for the
    first value of everything. change: how knobs are set on the running server, if any can be."""

    command: str
    search: Space
    ready: str = "/"
    path: str = "/"
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    expect: Expect = "any"
    default_params: Mapping[str, Any] = field(default_factory=dict)
    name: str = "command"
    change: Hot | None = None

    def __post_init__(self) -> None:
        known = [*OWN_NAMES, *self.search.names]
        if clash := sorted(set(OWN_NAMES) & set(self.search.names)):
            raise InvalidInput(f"space: parameter {clash[0]!r} is a name that the template has for itself", "rename it")
        words = self._words()
        if unknown := [n for word in words for n in _PLACEHOLDER.findall(word) if n not in known]:
            raise InvalidInput(f"command: unknown placeholder {{{unknown[0]}}}", f"known: {', '.join(known)}")
        if not any("port" in _PLACEHOLDER.findall(word) for word in words):
            raise InvalidInput("command: expected {port} in it, the server must listen on a port that is free")
        for label, path in (("--ready", self.ready), ("--path", self.path)):
            _check_path(label, path)
        if self.expect not in ("any", "json", "oip"):
            raise InvalidInput(f"expect: one of any, json, oip, got {self.expect!r}")
        _check_head("", self.method, self.headers)
        if self.default_params:
            self.search.validate(dict(self.default_params))
        if self.change is not None:
            self._check_hot(self.change)

    def _check_hot(self, change: Hot) -> None:
        """Raises InvalidInput."""
        always = [name for name, domain in self.search.domains.items() if not isinstance(domain, Choice | Group)]
        if wrong := sorted({*change.knobs, *change.named} - {*always}):
            what = "is no parameter that every trial has"
            raise InvalidInput(f"hot: {wrong[0]!r} {what}", f"such are: {', '.join(always) or 'none'}")
        if unset := sorted({*change.knobs} - change.named):
            raise InvalidInput(
                f"hot: the request does not set {unset[0]!r}", f"write {{{unset[0]}}} into its body or path"
            )
        started = {name for word in self._words() for name in _PLACEHOLDER.findall(word)}
        if lost := sorted({*change.knobs} - started):
            hint = f"write {{{lost[0]}}} into the command, too: fresh servers and exported ones start with it"
            raise InvalidInput(f"hot: a fresh server does not get {lost[0]!r}", hint)
        _check_path("hot: path", change.path)
        _check_head("hot: ", change.method, change.headers)

    @classmethod
    def from_options(
        cls, command: str, space: "str | Mapping[str, Any]", body: str | None = None, **more: Any
    ) -> "Command":
        """From what a user writes: `space` is a file (see the module) or the space itself, `body` a file."""
        try:
            if isinstance(space, str):
                search, defaults, change = load_space(Path(space))
            else:
                search, defaults = Space.from_json(space), dict(more.pop("defaults", {}))
                change = Hot.read(more.pop("hot")) if "hot" in more else None
            sent = None if body is None else Path(body).read_bytes()
            return cls(command, search, body=sent, default_params=defaults, change=change, **more)
        except OSError as error:
            raise InvalidInput(f"cannot read the request body {body}: {error.strerror}", "give a file") from error
        except TypeError as error:
            known = "options: command space ready path method headers body"
            raise InvalidInput(f"target command: {error}", known) from error

    @property
    def hot(self) -> frozenset[str]:
        return frozenset() if self.change is None else frozenset(self.change.knobs)

    def space(self, model: Model, machine: Machine) -> Space:
        return self.search

    def defaults(self, model: Model, machine: Machine) -> Params:
        return dict(self.default_params) or _first(self.search)

    def launch(self, model: Model, params: Params, port: int) -> Launch:
        values = {**params, "port": port, "model": model.path if model.variants else ""}
        argv = tuple(filled for word in self._words() if (filled := _fill(word, values)) is not None)
        return Launch(
            argv=argv,
            ready=Request("GET", self.ready),
            encode=self._encode,
            decode={"any": None, "json": _json_answer, "oip": codec.decode_response}[self.expect],
            record={"command": self.command, "expect": self.expect},
        )

    def apply(self, params: Params) -> Request | None:
        return None if self.change is None else self.change.filled(params)

    def _words(self) -> list[str]:
        try:
            words = shlex.split(self.command)
        except ValueError as error:
            raise InvalidInput(f"command: cannot be split into words: {error}", "close the quotes") from error
        if not words:
            raise InvalidInput("command: expected a command line, got none", "e.g. 'myserver --port {port}'")
        return words

    def _encode(self, item: Tensors) -> Request:
        if self.body is not None:
            return Request(self.method, self.path, self.headers, self.body)
        headers, body = codec.encode_request(item)
        return Request(self.method, self.path, {**headers, **self.headers}, body)


def load_space(path: Path) -> tuple[Space, Params, Hot | None]:
    """Space, defaults ({} if none are named) and hot knobs from a YAML or JSON file; see the module. Raises
    InvalidInput."""
    import yaml

    hint = "expected space: {name: {int: [1, 8]}, ...} and, if wanted, defaults: {name: value, ...}"
    try:
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidInput(f"{path}: no such file", "give --space a YAML or JSON file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInput(f"{path}: cannot be read: {' '.join(str(error).split())}", hint) from error
    if not isinstance(form, dict) or not isinstance(form.get("space"), dict):
        raise InvalidInput(f"{path}: there is no space in it", hint)
    if unknown := sorted(str(key) for key in form if key not in ("space", "defaults", "hot")):
        raise InvalidInput(f"{path}: unknown key {unknown[0]!r}", hint)
    space = Space.from_json(form["space"])
    defaults = form.get("defaults") or {}
    if not isinstance(defaults, dict):
        raise InvalidInput(f"{path}: defaults: expected name: value, got {defaults!r}", hint)
    change = Hot.read(form["hot"]) if "hot" in form else None
    return space, space.validate(defaults) if defaults else {}, change


def _fill(word: str, values: Mapping[str, Any]) -> str | None:
    """The word with its placeholders replaced; None if one of them is inactive."""
    if any(name not in values for name in _PLACEHOLDER.findall(word)):
        return None
    return _put(word, values)


def _put(text: str, values: Mapping[str, Any]) -> str:
    """The text with its placeholders replaced."""
    return _PLACEHOLDER.sub(lambda match: _text(values[match.group(1)]), text)


def _check_path(label: str, path: str) -> None:
    """Raises InvalidInput."""
    if not path.startswith("/") or path.startswith("//") or urlsplit(path).netloc or re.search(r"[\s\x00-\x1f]", path):
        raise InvalidInput(f"{label}: expected a path such as /health, got {path!r}")


def _check_head(label: str, method: str, headers: Mapping[str, str]) -> None:
    """Raises InvalidInput."""
    if not method.isalpha() or any(re.search(r"[\r\n\x00]", key + text) for key, text in headers.items()):
        raise InvalidInput(f"{label}method and headers: expected plain text on one line")


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _first(space: Space) -> Params:
    """The first value of every parameter, the lowest number, the first branch."""
    params: Params = {}
    for name, domain in space.domains.items():
        if isinstance(domain, Group):
            params |= {f"{name}.{key}": value for key, value in _first(domain.space).items()}
            continue
        params[name] = domain.low if isinstance(domain, Float | Int) else next(iter(domain.values()))
        if isinstance(domain, Choice):
            branch = _first(domain.branches[str(params[name])])
            params |= {f"{name}.{params[name]}.{key}": value for key, value in branch.items()}
    return params


def _json_answer(body: bytes) -> None:
    """No tensors are read from it; raises ValueError unless it is JSON."""
    import json

    json.loads(body)
