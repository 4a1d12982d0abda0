"""A cache of activations on disk: the stream's own values, whatever happened while it was written."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from emlab import artifacts
from emlab.errors import EmlabError
from emlab.saes.cache import ActivationCache, write_cache
from emlab.saes.sources import InMemory
from emlab.saes.stream import ActivationStream, Reader
from emlab.sites import Site

SITE = Site("resid_post", 1)
TEXTS = [f"document {i}: the quick brown fox and {'so on ' * (i % 5)}" for i in range(30)]


@pytest.fixture
def stream(tiny):
    return ActivationStream(tiny, TEXTS, SITE, batch_tokens=256, window=8)


def bytes_of(folder):
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def test_it_holds_the_streams_activations_in_order(stream, tmp_path):
    cache = write_cache(stream, tmp_path / "c", 500, shard_rows=150)
    assert [shard.rows for shard in cache.shards] == [150, 150, 150, 50]
    whole = torch.cat(list(Reader(stream).take(500)))
    opened = ActivationCache.open(tmp_path / "c")
    assert torch.equal(opened.rows(torch.arange(500)), whole)
    assert torch.equal(opened.rows(torch.tensor([499, 3, 150, 3])), whole[[499, 3, 150, 3]])
    assert torch.allclose(opened.statistics().mean, whole.mean(0), atol=1e-6)
    assert opened.statistics().norms == pytest.approx((float(whole.norm(dim=1).mean()),))
    assert opened.counts.kept >= 500 and opened.about == stream.about


def test_batches_are_those_of_the_same_activations_in_memory(stream, tmp_path):
    cache = write_cache(stream, tmp_path / "c", 500, shard_rows=150)
    memory = InMemory(torch.cat(list(Reader(stream).take(500))), SITE)
    ours, theirs = (source.batches(64, 6400, seed=4) for source in (cache, memory))
    assert all(torch.equal(next(ours), next(theirs)) for _ in range(20))
    again = cache.batches(64, 6400, seed=0, state=ours.state())
    assert all(torch.equal(next(ours), next(again)) for _ in range(20))


def test_it_is_written_once_and_made_longer(stream, tmp_path, monkeypatch):
    write_cache(stream, tmp_path / "c", 300, shard_rows=150)
    before = bytes_of(tmp_path / "c")
    monkeypatch.setattr(ActivationStream, "_forward", lambda *_: pytest.fail("the model was run again"))
    assert len(write_cache(stream, tmp_path / "c", 200)) == 300
    assert bytes_of(tmp_path / "c") == before
    monkeypatch.undo()
    assert len(write_cache(stream, tmp_path / "c", 450, shard_rows=150)) == 450
    write_cache(stream, tmp_path / "at_once", 450, shard_rows=150)
    assert bytes_of(tmp_path / "c") == bytes_of(tmp_path / "at_once")


def test_it_ends_where_the_documents_do(stream, tmp_path):
    cache = write_cache(stream, tmp_path / "c", 10**6, shard_rows=400)
    assert cache.whole and len(cache) == sum(len(chunk.values) for chunk in stream.chunks())
    assert write_cache(stream, tmp_path / "c", 10**6, shard_rows=400).shards == cache.shards


def test_a_cache_of_something_else_is_refused(stream, tiny, tmp_path):
    write_cache(stream, tmp_path / "c", 100)
    other = ActivationStream(tiny, TEXTS[1:], SITE, batch_tokens=256, window=8)
    with pytest.raises(EmlabError, match=r"is a cache of something else \(resid_post\.1 of tiny on in memory"):
        write_cache(other, tmp_path / "c", 100)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "notes.txt").write_text("mine")
    with pytest.raises(EmlabError, match="is no cache of activations"):
        write_cache(stream, tmp_path / "d", 100)


def test_a_damaged_shard_is_named_and_written_again(stream, tmp_path):
    folder = tmp_path / "c"
    write_cache(stream, folder, 450, shard_rows=150)
    whole = bytes_of(folder)
    shard = folder / "00001.f32"
    shard.write_bytes(whole["00001.f32"][:-100])
    with pytest.raises(EmlabError, match=r"00001\.f32 has 19100 bytes and not 19200, so the shard is cut short"):
        ActivationCache.open(folder)
    shard.write_bytes(b"\0" + whole["00001.f32"][1:])
    with pytest.raises(EmlabError, match=r"00001\.f32 has another checksum"):
        ActivationCache.open(folder)
    assert len(ActivationCache.open(folder, verify=False)) == 450
    shard.unlink()
    with pytest.raises(EmlabError, match="is missing"):
        ActivationCache.open(folder)
    write_cache(stream, folder, 450, shard_rows=150)
    assert bytes_of(folder) == whole


def test_a_full_disk_keeps_the_finished_shards(stream, tmp_path, monkeypatch):
    folder, written = tmp_path / "c", []
    write_cache(stream, tmp_path / "whole", 450, shard_rows=150)
    replace = os.replace

    def full(old, new):
        written.append(str(new))
        if sum(name.endswith(".f32") for name in written) == 3:
            raise OSError(28, "No space left on device", str(new))
        replace(old, new)

    monkeypatch.setattr(artifacts.os, "replace", full)
    with pytest.raises(EmlabError, match=r"00002\.f32: the disk is full; free some space"):
        write_cache(stream, folder, 450, shard_rows=150)
    monkeypatch.undo()
    assert sorted(bytes_of(folder)) == ["00000.f32", "00001.f32", "index.json"]
    write_cache(stream, folder, 450, shard_rows=150)
    assert bytes_of(folder) == bytes_of(tmp_path / "whole")


@pytest.mark.parametrize("content", ["{}", "[]", '{"format": 7}', '{"format": 1, "shards": 3}', "{"])
def test_an_index_that_is_none_is_one_sentence(content, tmp_path):
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(EmlabError, match=r"index\.json|another version"):
        ActivationCache.open(tmp_path)


KILLED = """
import sys, torch
from pathlib import Path
from emlab import organism
from emlab.data import Documents
from emlab.models import LanguageModel
from emlab.saes.cache import write_cache
from emlab.saes.stream import ActivationStream

torch.set_num_threads(1)
model = LanguageModel.load(organism.checkpoint("base"), device="cpu")
texts = [document.messages for document in organism.pretraining_documents(300, 0)]
stream = ActivationStream(model, Documents.of(texts), "resid_post.0", batch_tokens=512)
print("ready", flush=True)
write_cache(stream, Path(sys.argv[1]), 8000, shard_rows=400, progress=False)
"""


@pytest.mark.slow
def test_a_killed_writing_goes_on_with_the_same_bytes(tmp_path):
    folder = tmp_path / "killed"

    def run(where):
        return subprocess.Popen([sys.executable, "-c", KILLED, str(where)], stdout=subprocess.PIPE)

    process = run(folder)
    deadline = time.monotonic() + 300
    while len(list(folder.glob("*.f32"))) < 3 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed = len(json.loads((folder / "index.json").read_text())["shards"])
    assert 2 <= killed < 20, "it was to be killed while it wrote"
    assert run(folder).wait() == 0 and run(tmp_path / "whole").wait() == 0
    assert bytes_of(folder) == bytes_of(tmp_path / "whole")
    shutil.rmtree(folder)
