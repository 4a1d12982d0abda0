"""A training that was stopped and goes on comes to the weights of one that never stopped, bit for bit."""

import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from emlab.errors import EmlabError
from emlab.saes import checkpoints
from emlab.saes.buffer import BufferedStream
from emlab.saes.cache import write_cache
from emlab.saes.recipe import SaeRecipe
from emlab.saes.sources import InMemory
from emlab.saes.stream import ActivationStream
from emlab.saes.train import fit_sae
from emlab.sites import Site

SITE = Site("resid_post", 1)
TEXTS = [f"document {i}: the quick brown fox and {'so on ' * (i % 5)}" for i in range(40)]


class Stop(Exception):
    pass


@pytest.fixture
def stopped(monkeypatch):
    """stopped(n): from now on a training is stopped right after its n-th checkpoint; None: no longer."""
    save = checkpoints.save

    def after(n):
        left = [n]

        def saving(*given):
            save(*given)
            left[0] -= 1
            if left[0] == 0:
                raise Stop

        monkeypatch.setattr(checkpoints, "save", save if n is None else saving)

    return after


def source_of(kind, tiny, tmp_path):
    stream = ActivationStream(tiny, TEXTS, SITE, batch_tokens=256, window=8)
    if kind == "memory":
        return InMemory(torch.cat([chunk.values for chunk in stream.chunks()]), SITE)
    return BufferedStream(stream, 200) if kind == "stream" else write_cache(stream, tmp_path / "cache", 900, 300)


@pytest.mark.parametrize(
    ("kind", "architecture"),
    [("memory", "topk"), ("stream", "topk"), ("cache", "topk"), ("stream", "batchtopk"), ("stream", "jumprelu")],
)
def test_it_goes_on_to_the_same_weights(kind, architecture, tiny, tmp_path, stopped):
    recipe = SaeRecipe(architecture, d_sae=48, k=4, tokens=60 * 32, batch_size=32, dead_window=5, warm_up=7, seed=2)
    source = source_of(kind, tiny, tmp_path)
    whole = fit_sae(source, recipe)
    for stop in (1, 2):  # twice: what was gone on with is stopped again
        stopped(stop)
        with pytest.raises(Stop):
            fit_sae(source, recipe, folder=tmp_path / "run", checkpoint_every=13)
    assert [f.name for f in (tmp_path / "run").iterdir()] == ["step_000000039"]
    torch.manual_seed(0)
    stopped(None)
    again = fit_sae(source, recipe, folder=tmp_path / "run", checkpoint_every=13)
    assert again.steps == 60 - 39 and whole.steps == 60
    for name, value in whole.sae.state_dict().items():
        assert torch.equal(again.sae.state_dict()[name], value), name
    assert again.counts == whole.counts
    assert again.sae.cfg.metadata.l0 == whole.sae.cfg.metadata.l0
    assert not (tmp_path / "run").exists(), "a finished training needs no checkpoint"


def test_a_checkpoint_holds_no_pickle_and_is_of_one_training(tiny, tmp_path, stopped):
    source = source_of("stream", tiny, tmp_path)
    recipe = SaeRecipe(d_sae=48, k=4, tokens=960, batch_size=32)
    stopped(1)
    with pytest.raises(Stop):
        fit_sae(source, recipe, folder=tmp_path / "run", checkpoint_every=10)
    stopped(None)
    (folder,) = (tmp_path / "run").iterdir()
    assert sorted(f.name for f in folder.iterdir()) == ["state.json", "state.safetensors"]
    found = load_file(folder / "state.safetensors")
    assert found["batches.buffer"].shape == (200, 32)
    assert torch.equal(
        found["trainer.n_forward_passes_since_fired"], found["trainer.n_forward_passes_since_fired"].abs()
    )
    other = SaeRecipe(d_sae=48, k=5, tokens=960, batch_size=32)
    with pytest.raises(EmlabError, match="holds the checkpoint of another training"):
        fit_sae(source, other, folder=tmp_path / "run")
    (folder / "state.safetensors").write_bytes(b"half")
    with pytest.raises(EmlabError, match=r"state\.safetensors cannot be read"):
        fit_sae(source, recipe, folder=tmp_path / "run")


TRAIN = """
import sys
import torch
from emlab import organism
from emlab.cli import main

torch.set_num_threads(1)
sys.exit(main(["sae", "train", "--model", "base", "--out", sys.argv[1], "--tokens", "25600", "--batch-size", "128",
    "--buffer", "2048", "--d-sae", "256", "--k", "8", "--held-out", "5", "--checkpoint-every", "20"]))
"""


@pytest.mark.slow
def test_a_killed_command_goes_on_to_the_same_weights(tmp_path):
    def run(out):
        return subprocess.Popen([sys.executable, "-c", TRAIN, str(out)], stdout=subprocess.DEVNULL)

    out, folder = tmp_path / "killed", tmp_path / "killed.checkpoints"
    process = run(out)
    deadline = time.monotonic() + 600
    while not list(folder.glob("step_*")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(folder.glob("step_*")) and not out.exists()
    assert run(out).wait() == 0 and run(tmp_path / "whole").wait() == 0
    killed, whole = (load_file(tmp_path / name / "sae_weights.safetensors") for name in ("killed", "whole"))
    assert all(torch.equal(killed[name], whole[name]) for name in whole)
    assert not folder.exists()
