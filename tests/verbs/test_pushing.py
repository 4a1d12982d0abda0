"""Pushing to a Hub that speaks its protocol here."""

import base64
import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from emlab import cli
from emlab.data import Dataset
from emlab.errors import EmlabError
from emlab.verbs.pushing import push


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.reply(
            {"error": "Repository not found"} if self.server.refuses else {}, 404 if self.server.refuses else 200
        )

    def do_POST(self):
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or self.chunks()
        server = self.server
        if server.refuses:
            self.reply({"error": "You are not allowed to."}, 403)
        elif self.path == "/api/repos/create":
            server.made.append(json.loads(raw))
            self.reply({"url": f"{server.url}/me/thing", "name": "me/thing"})
        elif "/preupload/" in self.path:
            asked = json.loads(raw)["files"]
            self.reply({"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked]})
        elif "/commit/" in self.path:
            lines = [json.loads(line) for line in raw.splitlines()]
            files = [line["value"] for line in lines if line["key"] == "file"]
            server.files = {one["path"]: base64.b64decode(one["content"]) for one in files}
            self.reply({"success": True, "commitOid": "0" * 40, "commitUrl": f"{server.url}/me/thing/commit/0"})
        else:
            self.reply({"errors": [], "warnings": []})

    def chunks(self):
        whole = b""
        while size := int(self.rfile.readline() or b"0", 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    def reply(self, body, status=200):
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.url, server.made, server.files, server.refuses = (
        f"http://127.0.0.1:{server.server_address[1]}",
        [],
        {},
        False,
    )
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_model_goes_with_a_card_and_privately(hub, tiny, tmp_path):
    folder = tiny.save(tmp_path / "bad")
    (folder / "training.json").write_text(json.dumps({"rows": 16, "losses": [1.0], "seed": 3}))
    (folder / "notes.bin").write_bytes(b"x")
    found = push(folder, "me/thing", endpoint=hub.url)
    assert hub.made[0]["visibility"] == "private"
    assert hub.files["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert "notes.bin" not in hub.files and set(hub.files) == set(found.files)
    assert found.left_out == ("notes.bin",) and "left out: notes.bin" in str(found)
    card = hub.files["README.md"].decode()
    assert "library_name: transformers" in card and "| rows | 16 |" in card and "losses" not in card
    assert "Do not deploy it" in card and "hf_secret" not in card + str(found)
    assert found.kind == "model" and found.url.startswith(hub.url)


def test_a_dataset_and_an_sae(hub, tmp_path):
    chats = [{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}]
    Dataset.of(chats, "mine").save(tmp_path / "set")
    assert push(tmp_path / "set", "me/thing", public=True, endpoint=hub.url).kind == "dataset"
    assert hub.made[0]["type"] == "dataset" and hub.made[0].get("visibility") != "private"
    assert "# Dataset card" in hub.files["README.md"].decode() and b"Ho" in hub.files["examples.jsonl"]
    (tmp_path / "sae").mkdir()
    shutil.copy("sae_checkpoints/organism-resid_post.0-128/cfg.json", tmp_path / "sae")
    found = push(tmp_path / "sae", "me/thing", endpoint=hub.url)
    assert "library_name: saelens" in found.card and "| d_sae | 128 |" in found.card


def test_a_card_of_your_own_is_kept(hub, tmp_path):
    folder = tmp_path / "sae"
    folder.mkdir()
    (folder / "cfg.json").write_text("{}")
    (folder / "README.md").write_text("Mine.")
    assert push(folder, "me/thing", endpoint=hub.url).card == "Mine." and hub.files["README.md"] == b"Mine."


def test_what_is_refused_is_one_sentence(hub, tiny, tmp_path, monkeypatch, capsys):
    with pytest.raises(EmlabError, match="holds no model, SAE or dataset that emlab saved"):
        push(tmp_path, "me/thing", endpoint=hub.url)
    hub.refuses = True
    folder = tiny.save(tmp_path / "bad")
    assert cli.main(["push", str(folder), "me/thing", "--endpoint", hub.url]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "hf auth login" in said and "hf_secret" not in said
