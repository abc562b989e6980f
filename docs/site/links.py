"""Links of the documents that lead out of docs/, on the site.

The documents are read on the code host too, where a link to `../examples/` works.  On the site it
has to lead to the code host.  Where that is, pyproject.toml says; mkdocs calls these functions.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parents[2]
FENCED = re.compile(r"(^```.*?^```$)", flags=re.MULTILINE | re.DOTALL)
LINK = re.compile(
    r"(?P<image>!?)(?P<text>\[[^][]*\])\((?P<target>[^)\s#:]+)(?P<anchor>#[^)\s]*)?\)"
)


def place(name: str) -> str:
    """Return what `[tool.fastcore]` of pyproject.toml says: `repository` or `documentation`."""
    text = (SOURCE / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(
        rf'^{name} = "(.+)"', text.partition("[tool.fastcore]")[2], flags=re.MULTILINE
    )
    if found is None:
        raise SystemExit(f"pyproject.toml: no {name} in [tool.fastcore]")
    return found[1]


def on_config(config: Any) -> Any:
    """Fill in where the repository and the site are."""
    config.repo_url = place("repository")
    config.repo_name = "the source"
    config.edit_uri = "edit/main/docs/"
    config.site_url = place("documentation")
    return config


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Let links to what is no page lead to the repository; blocks of code are left alone."""
    folder = posixpath.dirname(posixpath.join("docs", page.file.src_uri))

    def lead(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, match["target"]))
        file = files.get_file_from_path(path.removeprefix("docs/"))
        is_on_site = file is not None and not file.inclusion.is_excluded()
        if is_on_site or not (SOURCE / path).exists():
            return match[0]  # where there is nothing, mkdocs complains
        kind = "tree" if (SOURCE / path).is_dir() else "blob"
        if match["image"]:
            kind = "raw"
        url = f"{config.repo_url.rstrip('/')}/{kind}/main/{path}{match['anchor'] or ''}"
        return f"{match['image']}{match['text']}({url})"

    parts = FENCED.split(markdown)
    return "".join(part if part.startswith("```") else LINK.sub(lead, part) for part in parts)
