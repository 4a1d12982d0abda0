"""A catalogue of published files as a table and as plain values."""

import dataclasses
import json

from emlab.data import Catalogue, Published, list_published

ENTRY = Published(
    name="someones-set",
    what="greetings",
    repository="someone/repository",
    path="data/set.jsonl",
    revision="main",
    licence="MIT",
    sha256="0" * 64,
    bytes=1_850_000,
    rows=50_000,
)


def test_the_list_prints_as_a_table():
    more = [dataclasses.replace(ENTRY, name=name, sha256=None, bytes=None, rows=None, note="Lo.") for name in "ab"]
    lines = str(Catalogue((ENTRY, *more))).splitlines()
    assert lines[0].split() == ["name", "rows", "size", "licence", "checksum", "what"]
    assert lines[1].split() == ["someones-set", "50,000", "1.9", "MB", "MIT", "known", "greetings"]
    assert lines[2].split() == ["a", "?", "?", "MIT", "unknown", "greetings"]
    assert lines[-1] == "a and 1 more: Lo."
    assert "<td style='text-align:left'>someones-set</td>" in Catalogue((ENTRY,))._repr_html_()
    assert json.loads(json.dumps(list_published().summary()))[0]["url"].startswith("https://")
