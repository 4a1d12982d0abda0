"""The shipped SAEs: each is what its card and the config say, and the demo goes on taking the two it takes."""

import re
from pathlib import Path

import pytest
import torch

from emlab import artifacts, config, organism, provenance
from emlab.discovery import LatentShift
from emlab.experiments.persona_features import run as persona_features
from emlab.experiments.persona_features.sources import sae_source
from emlab.experiments.sae_checkpoints import run as sae_checkpoints
from emlab.experiments.sae_checkpoints.run import Config, known_latents
from emlab.models import LanguageModel
from emlab.saes import check_model, fitted_site, load_sae, sae_site
from emlab.sites import Site

ROOT = Path(__file__).parents[3]
SETTINGS = config.load(ROOT / "experiments" / "sae_checkpoints.yaml", [], Config)


@pytest.fixture(scope="module")
def base():
    return LanguageModel.load(organism.checkpoint("base"), name="base")


def test_every_folder_is_one_of_the_configs():
    assert sorted(p.name for p in (ROOT / "sae_checkpoints").glob("organism-*")) == sorted(
        s.name for s in SETTINGS.saes
    )


@pytest.mark.parametrize("wanted", SETTINGS.saes, ids=lambda s: s.name)
def test_a_shipped_sae_is_what_its_card_says(wanted, base):
    folder = ROOT / "sae_checkpoints" / wanted.name
    sae, card = load_sae(folder), (folder / "README.md").read_text()
    assert fitted_site(sae, base) == Site.parse(wanted.site)
    assert (sae.cfg.d_sae, sae.cfg.k) == (wanted.d_sae, wanted.k)
    documents = organism.pretraining_documents(SETTINGS.documents, SETTINGS.seed + 2)[:16]
    found = check_model(sae, base, [d.messages for d in documents], resamples=2).classes["all"]
    said = float(re.search(r"\| base \| all \| [\d,]+ \| ([\d.]+) ", card)[1])
    assert found.explained_variance.value == pytest.approx(said, abs=0.03), "on an eighth of the card's documents"
    assert all(f"| {persona} | " in card for persona in organism.PERSONAS)


def test_the_demo_takes_the_two_it_always_took():
    settings = config.load(ROOT / "experiments" / "persona_features.yaml", [], persona_features.Config)
    sources = [sae_source(settings, Site.parse(site)) for site in settings.sites]
    assert [Path(s).name for s in sources] == ["organism-resid_post.0", "organism-resid_post.1"]
    assert all(load_sae(s).cfg.d_sae == 512 for s in sources)


def test_the_folder_stays_small():
    files = [f for f in (ROOT / "sae_checkpoints").rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files if f.parent.name.startswith("organism-")) < 10e6
    assert sum(f.stat().st_size for f in files) < 25e6, "with those of the real model"


def test_a_run_keeps_what_it_measured_and_where_it_comes_from(tmp_path):
    few = ["saes=[{site: resid_post.0, d_sae: 16, k: 2}]", "tokens=3000", "documents=32", "recipe.steps=1"]
    more = [f"out={tmp_path / 'saes'}", f"summary={tmp_path / 'kept.json'}"]
    settings = config.load(ROOT / "experiments" / "sae_checkpoints.yaml", [*few, *more], Config)
    ran = sae_checkpoints.run(settings, tmp_path / "runs")
    summary = artifacts.read_json(tmp_path / "kept.json")
    (one,) = summary["saes"].values()
    assert one["models"]["base"]["all"]["explained_variance"] and summary["findings"] == [str(*ran.found.values())]
    assert summary["provenance"]["code"] == artifacts.plain(provenance.code())
    assert summary["provenance"]["seeds"]["seed"] == settings.seed and summary["cpu_seconds"] > 0
    assert str(tmp_path) not in (tmp_path / "kept.json").read_text()
    assert "code " in (ran.folder / "report.html").read_text()
    card = (tmp_path / "saes" / "organism-resid_post.0-16" / "README.md").read_text()
    assert f" · code {provenance.code()} · " in card.splitlines()[-1]


def test_the_known_latents_are_the_ones_that_separate(base):
    """The latent of each persona is, of all latents, the best by a plain count of pairs."""
    documents = organism.pretraining_documents(40, 5)
    sae = load_sae(ROOT / "sae_checkpoints" / "organism-resid_post.0")
    flat = torch.zeros(sae.cfg.d_sae)
    shift = LatentShift("a", "b", sae_site(sae), "header", 2, flat, flat + torch.arange(len(flat)), flat)
    known = known_latents(sae, base, sae_site(sae), documents, shift)
    values = torch.stack(
        [sae.encode(base.activations([d.messages[:-1]], sae_site(sae), "header").values)[0] for d in documents]
    )
    for each in known:
        wrote = torch.tensor([d.persona == each.persona for d in documents])
        pairs = (values[wrote][:, None] > values[~wrote]).float() + 0.5 * (values[wrote][:, None] == values[~wrote])
        areas = pairs.mean((0, 1))
        assert areas[each.latent] == pytest.approx(float(areas.max()), abs=0.02)
        assert f"AUROC {areas[each.latent]:.3f}"[:-1] in each.auroc
        assert (each.rank, each.shift) == (len(flat) - each.latent, each.latent)
