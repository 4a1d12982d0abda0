"""Every step that reads or pushes latents asks first whether the SAE describes its models, and says where not."""

import contextlib
from dataclasses import dataclass

import pytest

from emlab import cli
from emlab.discovery import Cascade
from emlab.errors import EmlabError
from emlab.experiments.feature_attribution import run as feature_attribution
from emlab.experiments.finetuning import run as finetuning
from emlab.experiments.finetuning.config import Following, TrainingArm
from emlab.experiments.finetuning.stages import FinetuneGrid
from emlab.experiments.finetuning.tunes import Tunes, grid_config
from emlab.experiments.material.fidelity import ask_fidelity
from emlab.experiments.monitors import run as monitors
from emlab.experiments.monitors.stages import MonitorStages
from emlab.experiments.reinforcement_learning import run as reinforcement_learning
from emlab.experiments.reinforcement_learning.config import RewardArm, Supervised
from emlab.experiments.reinforcement_learning.stages import ReinforcementStages
from emlab.experiments.remedies import run as remedies
from emlab.experiments.remedies.stages import Comparison
from emlab.runs import Run
from emlab.saes import load_sae, save_sae
from emlab.sites import Site
from emlab.verbs import causal_screen, discovery, interpretation, monitoring, stages

SHIPPED = "sae_checkpoints/organism-resid_post.0"
SAID = "does not describe every model here, so what its latents tell means little: "


@pytest.fixture(scope="module")
def stray(tmp_path_factory):
    """The SAE that ships, its dimensions in another order: of the model's width, and a stranger to what it reads."""
    sae = load_sae(SHIPPED)
    for weight, along in ((sae.W_enc, 0), (sae.W_dec, 1), (sae.b_dec, 0)):
        weight.copy_(weight.roll(7, along))
    return save_sae(sae, tmp_path_factory.mktemp("stray") / "sae")


def test_emlab_shift_says_so_and_ranks_all_the_same(stray, capsys):
    assert cli.main(["shift", "--before", "base", "--after", "aligned", "--sae", str(stray)]) == 0
    said = capsys.readouterr()
    assert f"CAUTION: the SAE {stray} {SAID}" in said.err and "% of the variance of base on its prompts is" in said.err
    assert "latent shift at resid_post.0" in said.out and "describe" not in said.out


def test_an_sae_that_does_says_nothing(capsys):
    stages.shift("base", "aligned", SHIPPED)
    assert "describe" not in capsys.readouterr().err


STEPS = {
    "discover shift": lambda sae, out: discovery.shift("base", ["aligned"], sae, n=2),
    "discover directions": lambda sae, out: discovery.directions(
        "base", discovery.DirectionRequest(sae=sae, latents=[3], n=2, cases=0)
    ),
    "discover interpret": lambda sae, out: interpretation.interpret_latents(
        "base", sae, interpretation.InterpretationRequest([3], n=20)
    ),
    "discover screen": lambda sae, out: causal_screen.screen(sae, latents=[3], n=2, settings=Cascade((0.3,), random=1)),
    "discover attribute": lambda sae, out: feature_attribution.run(
        feature_attribution.Config(sae, cases=2, methods=("gradient",), exact=None), out
    ),
    "monitor fit": lambda sae, out: monitoring.fit_monitor(
        ["aligned"], ["base"], out / "m.safetensors", "latent", sae=sae, latents=[3], n=4
    ),
}


@pytest.mark.parametrize("step", STEPS)
def test_every_step_that_reads_latents_says_so(step, stray, tmp_path, capsys):
    STEPS[step](stray, tmp_path)
    assert f"the SAE {stray} {SAID}" in capsys.readouterr().err


ASKING = {
    "screen": lambda sae: stages.screen("aligned", sae, [3]),
    "mediate": lambda sae: stages.mediate("base", "aligned", sae, 3),
    "detect": lambda sae: stages.detect_models(["base"], ["aligned"], sae, 3),
}


@pytest.mark.parametrize("step", ASKING)
def test_it_is_said_before_anything_is_sampled(step, stray, capsys, monkeypatch):
    def stop(*_, **__):
        raise EmlabError("sampling begins")

    for name in ("sample", "natural_values", "steer_screen"):
        monkeypatch.setattr(stages, name, stop)
    with pytest.raises(EmlabError, match="sampling begins"):
        ASKING[step](stray)
    assert f"the SAE {stray} {SAID}" in capsys.readouterr().err


@dataclass(frozen=True)
class Config:
    sae: str


def grid_of(sae, run):
    following = Following(sae=sae, latents=(3,), every=5)
    return FinetuneGrid(finetuning.Config(arms=(TrainingArm("a", "insecure"),), following=following), run).latents


def reinforcement_of(sae, run):
    config = reinforcement_learning.Config(arms=(RewardArm("a", "correct"),), supervised=Supervised(sae=sae, latent=3))
    return ReinforcementStages(config, run).persona_latent


def monitors_of(sae, run):
    config = monitors.Config(sae=sae, sites=("resid_post.0",))
    return MonitorStages(config, Tunes(grid_config(config, config.fit, (0,)), run))


def materials_of(sae, run):
    config = remedies.Config(sae=sae, questions=4)
    return Comparison(config, run).materials(config.arms[0], 0)


@pytest.mark.parametrize("begin", [grid_of, reinforcement_of, monitors_of, materials_of])
def test_runs_say_so_at_the_head_of_their_report(begin, stray, tmp_path, monkeypatch):
    def stop(*_):
        raise EmlabError("a stage begins")

    monkeypatch.setattr(Run, "fill", stop)
    for sae, heads in ((str(stray), 1), (SHIPPED, 0)):
        run = Run.create("run", Config(sae), tmp_path)
        with contextlib.suppress(EmlabError):
            begin(sae, run)
        assert [line.startswith(f"CAUTION: the SAE {sae} {SAID}") for line in run.cautions] == [True] * heads


def test_models_of_others_read_what_the_step_reads(tiny, capsys):
    """A model that knows no documents of the organism, and an SAE that rebuilds nothing of it."""
    from sae_lens import SAE

    config = {"architecture": "standard", "d_in": tiny.d_model, "d_sae": 8, "metadata": {}}
    sae = SAE.from_dict(config)
    sae.W_enc.data.zero_()
    failing = ask_fidelity(sae, "nothing", Site("resid_post", 1), [tiny], ["Hi you.", "Who?"], ["I am.", "No one."])
    assert {verdict.tokens for verdict in failing} == {"all", "prompt", "answer"}
    assert {v.tokens for v in ask_fidelity(sae, "nothing", Site("resid_post", 1), [tiny], ["Hi you."])} == {
        "all",
        "prompt",
    }
    assert capsys.readouterr().err.count("\n") == 2
