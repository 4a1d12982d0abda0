"""The pages as a whole: none is lost, every link leads somewhere, and the first one is short."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
SETTINGS = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
LONGEST_README = 8 * 1024
"""Bytes."""


def prose(path: Path) -> str:
    """A page without its code."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.sub(r"^(?: {4}|\t).*$|`[^`\n]*`", "", text, flags=re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """What a link can point at in a page."""
    heads = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", head.lower()).strip().replace(" ", "-") for head in heads}


def dead(path: Path) -> list[str]:
    """The links of a page that lead nowhere."""
    found = []
    for link in LINK.findall(prose(path)):
        name, _, anchor = link.partition("#")
        if "://" in name:
            continue
        target = path.parent / name if name else path
        if not target.is_file() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


def in_nav(entry: object) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    parts = entry.values() if isinstance(entry, dict) else entry
    return [page for part in parts for page in in_nav(part)]


def test_the_readme_fits_on_a_few_screens():
    assert len((ROOT / "README.md").read_bytes()) <= LONGEST_README


@pytest.mark.parametrize("path", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES], ids=lambda path: path.name)
def test_every_link_leads_somewhere(path):
    assert dead(path) == []


def test_a_dead_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A page\n[b](none.md) [c](#a-page) [d](#elsewhere) [e](https://example.org)\n\n    [f](code.md)\n"
    )
    assert dead(page) == ["none.md", "#elsewhere"]


def test_every_page_is_in_the_sites_contents_once():
    assert sorted(in_nav(SETTINGS["nav"])) == [page.name for page in PAGES]


def test_the_reference_has_every_public_name():
    listed = re.findall(r"\[`(\w+)`\]\[emlab\.(\w+)\.\w+\]", (DOCS / "reference.md").read_text(encoding="utf-8"))
    stub = (ROOT / "emlab/__init__.pyi").read_text(encoding="utf-8")
    assert sorted(listed) == sorted((name, room) for room, name in re.findall(r"from \.(\w+) import (\w+) as", stub))


def test_every_public_room_has_its_place_in_the_reference():
    texts = "".join(path.read_text(encoding="utf-8") for path in DOCS.glob("reference_*.md"))
    rooms = set(re.findall(r"\[`emlab\.(\w+)`\]", (DOCS / "reference.md").read_text(encoding="utf-8")))
    assert rooms <= set(re.findall(r"^::: emlab\.(\w+)", texts, flags=re.MULTILINE))


@pytest.mark.skipif(find_spec("mkdocs") is None, reason="mkdocs is not installed; `make site` installs the extra docs")
def test_the_site_is_built_without_a_warning_and_asks_nobody_for_anything(tmp_path):
    assert SETTINGS["strict"] is True
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for page in PAGES:
        text = (tmp_path / "site" / f"{page.stem}.html").read_text(encoding="utf-8")
        assert re.findall(r'<(?:script|img|link)[^>]*\s(?:src|href)="(?:https?:)?//', text) == [], page.name
