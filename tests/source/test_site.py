"""The site of the documents: where its links lead, which pages it has, where it is.

`make docs` builds it, and fails where a link leads nowhere; what is here needs no mkdocs.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

SOURCE = Path(__file__).resolve().parents[2]
DOCS = SOURCE / "docs"
REPOSITORY = "https://code.example.net/fastcore"


def load_hook() -> Any:
    spec = importlib.util.spec_from_file_location("links", DOCS / "site" / "links.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


hook = load_hook()


class Files:
    """As mkdocs has them: what is below docs/, some of it left out of the site."""

    def get_file_from_path(self, path: str) -> Any:
        if not (DOCS / path).is_file():
            return None
        excluded = path.startswith(("changes/", "site/"))
        return SimpleNamespace(inclusion=SimpleNamespace(is_excluded=lambda: excluded))


def led(text: str, page: str = "servers.md") -> str:
    config = SimpleNamespace(repo_url=REPOSITORY + "/")
    seen = SimpleNamespace(file=SimpleNamespace(src_uri=page))
    return str(hook.on_page_markdown(text, seen, config, Files()))


@pytest.mark.parametrize(
    ("link", "url"),
    [
        ("[a](../README.md)", "[a]({}/blob/main/README.md)"),
        ("[a](../README.md#three)", "[a]({}/blob/main/README.md#three)"),
        ("[a](../examples)", "[a]({}/tree/main/examples)"),
        ("[a](changes/README.md)", "[a]({}/blob/main/docs/changes/README.md)"),
        ("![a](../src/poller.h)", "![a]({}/raw/main/src/poller.h)"),
    ],
)
def test_what_is_no_page_is_in_the_repository(link: str, url: str) -> None:
    assert led(f"x {link} y") == f"x {url.format(REPOSITORY)} y"


@pytest.mark.parametrize(
    "text",
    [
        "[a](tls.md)",
        "[a](tls.md#hooks)",
        "[a](#logs)",
        "![a](benchmarks/idle-cpu.svg)",
        "[a](https://example.org/README.md)",
        "[a](../nothing.md)",  # mkdocs complains of that
        "```\n[a](../README.md)\n```",
    ],
)
def test_what_else_stays_as_it_is(text: str) -> None:
    assert led(text) == text


def test_a_page_in_a_folder_leads_from_there() -> None:
    assert (
        led("[a](../../README.md)", "how-to/threads.md") == f"[a]({REPOSITORY}/blob/main/README.md)"
    )
    assert led("[a](../tls.md)", "how-to/threads.md") == "[a](../tls.md)"


def test_every_page_is_in_the_menu() -> None:
    menu = (SOURCE / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    named = re.findall(r"([\w./-]+\.md)$", menu, flags=re.MULTILINE)
    pages = [path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")]
    assert sorted(named) == sorted(page for page in pages if not page.startswith("changes/"))


def test_every_public_module_has_a_page_of_reference() -> None:
    there = {path.stem for path in (SOURCE / "fastcore").glob("[a-z]*.py")}
    pages = {path.stem for path in (DOCS / "api").glob("*.md")}
    assert pages == there | {"fastcore"}


def test_it_says_where_it_is_in_one_place() -> None:
    config = hook.on_config(SimpleNamespace())
    text = (SOURCE / "pyproject.toml").read_text(encoding="utf-8")
    assert text.count(f'"{config.repo_url}"') == text.count(f'"{config.site_url}"') == 1
    assert config.repo_url not in (SOURCE / "mkdocs.yml").read_text(encoding="utf-8")


def test_tools_before_a_commit_are_those_of_make_lint() -> None:
    pinned = (SOURCE / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    (version,) = re.findall(r'"(clang-format==[\d.]+)"', pinned)
    assert f'"{version}"' in (SOURCE / "pyproject.toml").read_text(encoding="utf-8")
