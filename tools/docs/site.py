"""Builds the pages of the docs as a site: `python -m tools.docs.site build/site`.

The pages are laid out as in the repository, so that their links mean the same; Sphinx with Furo and MyST does the rest
(docs/design/decisions/the-site-is-sphinx.md). Every warning is an error: a link that leads nowhere, a heading that is
not there, a page that is in no chapter. Beside the site lies `llms.txt`, the list of its pages for programs that read.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
FIRST: Final = "docs/index"
CHAPTERS: Final = {
    "Begin": ("README", "docs/tutorial", "docs/troubleshooting", "docs/platforms"),
    "How to": (
        "docs/howto/own-script", "docs/howto/many-runs", "docs/howto/out-of-memory", "docs/howto/share-the-gpu",
        "docs/howto/service", "docs/overnight", "docs/bulk", "docs/order", "docs/report", "docs/hooks", "docs/scripts",
        "docs/housekeeping",
        "docs/cluster",
    ),
    "Coming from …": (
        "docs/coming-from/index", "docs/coming-from/pueue", "docs/coming-from/task-spooler",
        "docs/coming-from/gflow", "docs/coming-from/slurm", "docs/coming-from/submitit", "docs/coming-from/nohup",
        "docs/coming-from/npm",
    ),
    "Explanation": (
        "docs/timebox", "docs/checkpoints", "docs/gpu", "docs/integrations", "docs/trainers", "docs/reliability",
        "SECURITY", "benchmarks/README",
    ),
    "Reference": (
        "docs/commands", "docs/cli", "docs/configuration", "docs/recipes", "docs/protocol", "docs/json",
        "docs/exit-codes", "docs/glossary", "skills/backprop/SKILL", "examples/agent_night/README",
    ),
    "Inside": (
        "docs/design/architecture", "docs/design/lifecycle", "docs/design/decisions/README", "CONTRIBUTING",
        "CHANGELOG",
    ),
    "Languages": ("docs/languages/index",),
}  # fmt: skip
"""Pages of the side bar, by chapter. Pages of a folder whose index is here are below it."""
BELOW: Final = {
    "docs/design/decisions/README": "docs/design/decisions",
    "docs/languages/index": "docs/languages",
}
CARRIED: Final = (
    "docs",
    "benchmarks/README.md",
    "examples",
    "skills",
    "tools",
    "tests",
    "cli",
    "scheduler",
    "worker",
)
"""What pages link to. Only pages of `docs` and those of CHAPTERS become pages of the site."""
CONFIGURATION: Final = """\
from sphinx.highlighting import lexers
from pygments.lexers.special import TextLexer

project = "Backprop"
extensions = ["myst_parser"]
root_doc = "{first}"
include_patterns = {patterns}
html_theme = "furo"
html_title = "Backprop"
html_copy_source = False
html_show_copyright = False
myst_heading_anchors = 4
lexers["mermaid"] = TextLexer()
lexers["console"] = TextLexer()
"""


def build(out: Path) -> int:
    """Build the site into `out`; return Sphinx's exit code."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        lay_out(source)
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "sphinx",
                "-W",
                "-n",
                "-q",
                "--keep-going",
                "-b",
                "html",
                str(source),
                str(out),
            ],
            check=False,
        )
    if done.returncode == 0:
        (out / "llms.txt").write_text(llms())
        (out / "index.html").write_text(f'<meta http-equiv="refresh" content="0; url={FIRST}.html">\n')
    return done.returncode


def lay_out(source: Path) -> None:
    """Copy what pages are and link to into `source`, with Sphinx's configuration and the chapters."""
    source.mkdir(parents=True)
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc", "*-out")
    for name in (*CARRIED, *(path.name for path in ROOT.glob("*.md")), "LICENSE", "pyproject.toml"):
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=ignored)
        else:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, source / name)
    named = [name for names in CHAPTERS.values() for name in names]
    patterns = ["docs/**", *(f"{name}.md" for name in named if not name.startswith("docs"))]
    (source / "conf.py").write_text(CONFIGURATION.format(first=FIRST, patterns=patterns))
    _append(source / f"{FIRST}.md", "".join(_toctree(title, names) for title, names in CHAPTERS.items()))
    for index, folder in BELOW.items():
        names = sorted(path.stem for path in (ROOT / folder).glob("*.md") if path.stem != Path(index).name)
        _append(source / f"{index}.md", _toctree(None, [f"{folder}/{name}" for name in names]))


def llms() -> str:
    """Return the list of pages for programs, with what each is about. (llmstxt.org)"""
    return "\n".join(_llms()) + "\n"


def _llms() -> Iterator[str]:
    yield "# Backprop\n"
    yield "> Queue training runs on a Linux workstation; they take turns: timeboxed, checkpointed, resumed.\n"
    yield "Installed from `backprop-scheduler`; agents may use `backprop … --json` or `backprop mcp`."
    for chapter, names in CHAPTERS.items():
        yield f"\n## {chapter}\n"
        for name in names:
            title, about = _about(ROOT / f"{name}.md")
            yield f"- [{title}]({name}.html){f': {about}' if about else ''}"


def _about(page: Path) -> tuple[str, str]:
    """Return the title of a page and its first sentence."""
    text = page.read_text()
    title = re.search(r"^# (.+)$", text, re.M)
    paragraphs = (part.strip() for part in text.split("\n\n")[1:])
    first = next((part for part in paragraphs if re.match(r"[A-Z\[]|`[^`]", part)), "")
    plain = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", " ".join(first.split()))
    return title[1] if title else page.stem, re.split(r"(?<=[.:])\s", plain)[0].rstrip(":")


def _toctree(title: str | None, names: "tuple[str, ...] | list[str]") -> str:
    caption = [f":caption: {title}"] if title else []
    lines = ["```{toctree}", ":hidden:", *caption, "", *(f"/{name}" for name in names), "```"]
    return "\n" + "\n".join(lines) + "\n"


def _append(page: Path, text: str) -> None:
    with page.open("a") as file:
        file.write(text)


def main() -> int:
    """Build the site into the folder that is named."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.docs.site", description="Build the docs as a site. Needs the extra `docs`."
    )
    parser.add_argument("out", type=Path, help="the folder to write, such as build/site")
    return build(parser.parse_args().out)


if __name__ == "__main__":
    sys.exit(main())
