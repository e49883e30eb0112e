"""Writes the map in docs/architecture.md from the files' own docstrings: python docs/make_map.py"""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
SOURCE = ROOT / "src" / "fettle"
FOLDERS = (
    ("core", "records and protocols; NumPy and nothing of Fettle"),
    ("host", "all that touches the operating system"),
    ("surrogates", "models of what was measured: `fit(X, y) -> Posterior`, and what follows from them"),
    ("algorithms", "what is tried next"),
    ("schedulers", "at which fidelity"),
    ("storage", "where journals live"),
    ("executors", "where evaluations run"),
    ("problems", "what is searched and how it is measured"),
    ("replay", "searches on measured tables"),
    ("report", "pure: from a log of trials to tables, charts, JSON and a page"),
    ("testing", "public conformance suites and doubles"),
    ("", "one study, and one call"),
    ("interop", "Fettle's algorithms in other frameworks' programs"),
    ("cli", "the only code that knows everything"),
)
_BEGIN, _END = "<!-- map: python docs/make_map.py -->\n", "<!-- end of map -->\n"


def map_() -> str:
    parts = []
    for folder, what in FOLDERS:
        paths = (SOURCE / folder).rglob("*.py") if folder else SOURCE.glob("*.py")
        lines = [
            f"| `{path.relative_to(SOURCE / folder)}` | {_first(path)} |"
            for path in sorted(paths)
            if path.name != "__init__.py"
        ]
        if lines:
            parts.append("\n".join([f"**`{folder or 'fettle'}/`**: {what}\n", "| file | |", "| --- | --- |", *lines]))
    return "\n\n".join(parts) + "\n"


def page() -> str:
    """The page with its map made anew."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n{map_()}\n{_END}{after}"


def _first(path: Path) -> str:
    """The docstring's first sentence."""
    paragraph = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
    return re.split(r"(?<=\w[.)]) (?=[A-Z`])", " ".join(paragraph.split()))[0].rstrip(".").replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
