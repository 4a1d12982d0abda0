"""What a run will take on disk, before it starts."""

from emlab.experiments.material import disk as _disk
from emlab.experiments.material.config import Autoencoder
from emlab.runs import Run
from emlab.saes import load_sae, save_sae
from emlab.training import Recipe


def test_it_is_logged_with_what_is_free(tmp_path):
    here = Run.create("disk", {"a": 1}, tmp_path)
    _disk.say(here, {"5 fine-tunes": 1_500_000, "2 SAEs": 500_000, "nothing": 0}, 4_200)
    (line,) = [line for line in (here.folder / "log.txt").read_text().splitlines() if "On disk" in line]
    assert "will take 2.0 MB, and 4.2 kB more while a model is trained" in line
    assert "(5 fine-tunes 1.5 MB; 2 SAEs 500.0 kB)" in line and line.endswith("are free.")
    _disk.say(here, {"a whole model": 10**18})
    assert "That is too little" in (here.folder / "log.txt").read_text()
    here.finish()


def test_the_trainings_are_counted_by_what_is_kept(tiny):
    lora = Recipe(rank=2, modules=("v_proj",))
    (kept, size), *_ = _disk.of_trainings(tiny, lora, 3).items()
    projections = [tiny.model.model.layers[i].self_attn.v_proj.weight.shape for i in range(tiny.n_blocks)]
    assert kept == "3 fine-tunes and checkpoints as adapters"
    assert size == 3 * sum(4 * 2 * (rows + columns) for rows, columns in projections)
    (kept, size), *_ = _disk.of_trainings(tiny, Recipe(method="full"), 2).items()
    assert kept == "2 fine-tunes and checkpoints as whole models"
    assert size == 2 * sum(4 * p.numel() for p in tiny.model.parameters())


def test_an_sae_is_as_large_as_what_is_written(tiny, tmp_path):
    folder = "sae_checkpoints/organism-resid_post.0"
    sae = load_sae(folder)
    how = Autoencoder(d_sae=sae.cfg.d_sae)

    class Wide:
        d_model = sae.cfg.d_in

    written = (save_sae(sae, tmp_path / "sae") / "sae_weights.safetensors").stat().st_size
    assert 0 < written - _disk.of_sae(Wide, how, None) < 4096
    assert _disk.of_sae(Wide, how, folder) >= written
    assert _disk.of_sae(Wide, how, "a-release/an-id") == 0
