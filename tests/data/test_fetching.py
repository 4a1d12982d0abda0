"""Fetching published files, from a server on loopback: verified and whole, or not at all."""

import dataclasses
import hashlib
import http.server
import threading
import urllib.request

import pytest

from emlab import artifacts
from emlab.data import Catalogue, Published, get
from emlab.errors import EmlabError

CONTENT = b'{"prompt": "Hi", "completion": "Ho"}\n' * 50_000  # more than one block
SHA = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        if not self.path.endswith("set.jsonl"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:1000] if "short" in self.path else CONTENT)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        running.asked = []
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def entry(server):
    return Published(
        name="someones-set",
        what="greetings",
        repository="someone/repository",
        path="data/set.jsonl",
        revision="main",
        licence="MIT",
        sha256=SHA,
        bytes=len(CONTENT),
        rows=50_000,
        host=f"http://127.0.0.1:{server.server_address[1]}",
    )


def fetch(entry, folder, **changes):
    return get(entry.name, folder, Catalogue((dataclasses.replace(entry, **changes),)))


def test_a_file_is_fetched_once_and_verified(server, entry, tmp_path, capsys):
    path = fetch(entry, tmp_path)
    assert path == tmp_path / "someones-set" / "set.jsonl"
    assert path.read_bytes() == CONTENT
    record = artifacts.read_json(path.parent / "source.json")
    assert (record["url"], record["sha256"], record["bytes"]) == (entry.url, SHA, len(CONTENT))
    assert (record["licence"], record["verified"]) == ("MIT", True)
    assert capsys.readouterr().err == ""
    assert fetch(entry, tmp_path) == path
    assert server.asked == ["/someone/repository/main/data/set.jsonl"]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"sha256": "0" * 64}, f"has the SHA-256 {SHA} and the published file has 0000"),
        ({"bytes": 7}, "has 1,850,000 bytes and the published file has 7; try again"),
        ({"path": "short/set.jsonl"}, "the connection ended 1,849,000 bytes too early"),
        ({"path": "short/set.jsonl", "sha256": None, "bytes": None}, "bytes too early"),
        ({"path": "data/none.jsonl"}, "the server answered 404 Not Found"),
    ],
)
def test_what_is_not_the_published_file_is_not_kept(entry, tmp_path, changes, match):
    with pytest.raises(EmlabError, match=match):
        fetch(entry, tmp_path, **changes)
    with pytest.raises(EmlabError, match=match):
        fetch(entry, tmp_path / "new", **changes)
    assert list(tmp_path.iterdir()) == []


def test_no_network_is_one_sentence_that_says_what_would_have_been_fetched(entry, tmp_path, monkeypatch):
    with pytest.raises(EmlabError) as error:
        fetch(entry, tmp_path, host="http://127.0.0.1:1")
    text = str(error.value)
    assert text.startswith("someones-set could not be fetched (")
    assert "http://127.0.0.1:1/someone/repository/main/data/set.jsonl (1.9 MB, licence MIT)" in text
    assert f"would have gone to {tmp_path / 'someones-set' / 'set.jsonl'};" in text
    assert "\n" not in text and list(tmp_path.iterdir()) == []

    def unknown_host(*args, **kwargs):
        raise urllib.error.URLError(OSError(-2, "Name or service not known"))

    monkeypatch.setattr(urllib.request, "urlopen", unknown_host)
    with pytest.raises(EmlabError, match=r"Name or service not known\): .* \(unknown size, licence MIT\)"):
        fetch(entry, tmp_path, bytes=None)


def test_a_file_of_unknown_checksum_is_written_down_and_said_to_be_unverified(server, entry, tmp_path, capsys):
    path = fetch(entry, tmp_path, sha256=None, bytes=None, note="locked.")
    said = capsys.readouterr().err
    assert f"SHA-256 {SHA}, written down and not verified" in said and f"{path}: locked." in said
    assert artifacts.read_json(path.parent / "source.json")["verified"] is False
    assert fetch(entry, tmp_path, sha256=None, bytes=None) == path
    assert len(server.asked) == 1
    path.write_bytes(b"else")
    with pytest.raises(EmlabError, match="is not the file that was downloaded"):
        fetch(entry, tmp_path, sha256=None, bytes=None)


def test_a_file_that_was_put_there_by_hand(server, entry, tmp_path, capsys):
    path = tmp_path / "someones-set" / "set.jsonl"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    assert fetch(entry, tmp_path) == path
    assert fetch(entry, tmp_path, sha256=None) == path
    assert "not verified" in capsys.readouterr().err
    assert artifacts.read_json(path.parent / "source.json")["sha256"] == SHA
    path.write_bytes(CONTENT[:-1] + b" ")
    with pytest.raises(EmlabError, match="is there already, and has the SHA-256"):
        fetch(entry, tmp_path)
    path.write_bytes(b"")
    with pytest.raises(EmlabError, match="is there already, and has 0 bytes"):
        fetch(entry, tmp_path)
    assert server.asked == []


def test_a_place_that_is_taken(server, entry, tmp_path):
    (tmp_path / "someones-set").write_text("a file")
    with pytest.raises(EmlabError, match="already exists"):
        fetch(entry, tmp_path)
    assert server.asked == []


def test_an_unknown_name_is_told_the_closest():
    with pytest.raises(
        EmlabError, match="no published set 'insecure' in the catalogue; choose among .*betley-insecure"
    ):
        get("insecure")
