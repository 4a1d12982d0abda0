"""Latents in one unit: an SAE's own scale of each latent changes nothing that is read of it or written by it."""

import json
import re
from functools import partial
from pathlib import Path

import pytest
import torch
from sae_lens import SAE
from sae_lens.registry import SAE_CLASS_REGISTRY
from safetensors.torch import load_file

import emlab
from emlab.errors import EmlabError
from emlab.saes import InMemory, SaeRecipe, decoder_rows, encode, fit_sae, latent_values, load_sae, save_sae, writes
from emlab.saes.units import fold, row_lengths
from emlab.sites import Site

D_IN, D_SAE, K = 16, 48, 6
LENGTHS = torch.logspace(-1.5, 1.5, D_SAE)[torch.randperm(D_SAE, generator=torch.Generator().manual_seed(1))]
"""Of the decoder's rows: from a thirtieth to thirty."""
X = 2 * torch.randn(64, D_IN, generator=torch.Generator().manual_seed(0)) + 0.5

ARCHITECTURES = {
    "standard": {},
    "gated": {},
    "jumprelu": {},  # what batchtopk and matryoshka SAEs are saved as
    "topk": {"k": K, "rescale_acts_by_decoder_norm": False},
    "topk, rescaled": {"k": K, "rescale_acts_by_decoder_norm": True},
    "abstopk": {"k": K, "rescale_acts_by_decoder_norm": False},
    "abstopk, rescaled": {"k": K, "rescale_acts_by_decoder_norm": True},
    "transcoder": {"d_out": 12, "apply_b_dec_to_input": False},
    "skip_transcoder": {"d_out": 12, "apply_b_dec_to_input": False},
    "jumprelu_transcoder": {"d_out": 12, "apply_b_dec_to_input": False},
    "jumprelu_skip_transcoder": {"d_out": 12, "apply_b_dec_to_input": False},
}


def build(kind, lengths=LENGTHS, **more):
    """An SAE of random weights whose rows have these lengths."""
    config = {"architecture": kind.split(",")[0], "d_in": D_IN, "d_sae": D_SAE, "metadata": {}}
    sae = SAE.from_dict({**config, **ARCHITECTURES[kind], **more})
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in sae.named_parameters():
            value.copy_(torch.randn(value.shape, generator=generator) * (0.3 if name.startswith("b_") else 1.0))
            if name == "threshold":
                value.abs_()
            if name == "W_dec":
                value.mul_((lengths / value.norm(dim=1))[:, None])
    return sae.eval().requires_grad_(False)


def own_units(sae, x):
    """SAELens' activations, times the lengths where it has not multiplied by them."""
    latents = sae.encode(x)
    return latents if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False) else latents * sae.W_dec.norm(dim=1)


def same(found, wanted):
    assert torch.allclose(found, wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))


def test_every_architecture_of_saelens_is_folded_or_refused():
    known = {kind.split(",")[0] for kind in ARCHITECTURES}
    assert known | {"temporal", "matching_pursuit"} == set(SAE_CLASS_REGISTRY)


@pytest.mark.parametrize("normalised", ["none", "layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_loaded_sae_has_unit_rows_and_computes_the_same(kind, normalised, tmp_path):
    """encode × row length, and decode, to 1e-5."""
    raw = build(kind, normalize_activations=normalised)
    raw.save_model(tmp_path / "sae")
    loaded = load_sae(tmp_path / "sae")
    assert torch.allclose(loaded.W_dec.norm(dim=1), torch.ones(D_SAE), atol=1e-6)
    assert bool((loaded.encode(X) != 0).any())
    same(loaded.encode(X), own_units(raw, X))
    same(loaded.decode(loaded.encode(X)), raw.decode(raw.encode(X)))
    save_sae(loaded, tmp_path / "again")  # and SAELens reads what is saved
    plain = SAE.load_from_disk(tmp_path / "again")
    same(plain.decode(plain.encode(X)), raw.decode(raw.encode(X)))
    same(load_sae(tmp_path / "again").encode(X), own_units(raw, X))


@pytest.mark.parametrize("bias", [True, False])
def test_a_bias_taken_from_the_input_stays(bias, tmp_path):
    raw = build("jumprelu", apply_b_dec_to_input=bias)
    raw.save_model(tmp_path / "sae")
    same(load_sae(tmp_path / "sae").encode(X), own_units(raw, X))


@pytest.mark.parametrize("kind", [k for k in ARCHITECTURES if "transcoder" not in k])
def test_an_sae_in_memory_reads_and_writes_as_when_loaded(kind, tmp_path):
    raw = build(kind)
    before = {name: value.clone() for name, value in raw.state_dict().items()}
    raw.save_model(tmp_path / "sae")
    loaded = load_sae(tmp_path / "sae")
    same(encode(raw, X), loaded.encode(X))
    same(encode(raw, X, [3, 5]), loaded.encode(X)[:, [3, 5]])
    same(latent_values(raw, X, [3, 5]), loaded.encode(X)[:, [3, 5]])
    same(encode(raw, X) @ writes(raw, range(D_SAE)) + raw.b_dec, raw.decode(raw.encode(X)))
    assert torch.allclose(decoder_rows(raw), loaded.W_dec, atol=1e-6)
    assert all(torch.equal(before[name], value) for name, value in raw.state_dict().items()), "it was only read"


def test_units_follow_weights_that_change():
    raw = build("standard")
    once = encode(raw, X)
    raw.W_dec.data *= 3  # no version of the tensor counts this
    same(encode(raw, X), 3 * once)
    same(decoder_rows(raw), raw.W_dec / raw.W_dec.norm(dim=1, keepdim=True))


def test_a_row_of_zeros_writes_nothing_and_is_never_active(tmp_path):
    raw = build("jumprelu", torch.where(torch.arange(D_SAE) == 7, 0.0, LENGTHS))
    raw.save_model(tmp_path / "sae")
    loaded = load_sae(tmp_path / "sae")
    for sae in (raw, loaded):
        assert not bool(encode(sae, X)[:, 7].any()) and not bool(writes(sae, [7]).any())
    same(loaded.decode(loaded.encode(X)), raw.decode(raw.encode(X)))


def test_rows_of_half_precision_are_unit_but_for_their_rounding():
    sae = build("standard", torch.ones(D_SAE)).to(torch.bfloat16)
    assert bool((row_lengths(sae) == 1).all())
    assert bool((row_lengths(build("standard", 1.01 * torch.ones(D_SAE))) != 1).all())


@pytest.mark.parametrize("architecture", ["topk", "fast_topk", "batchtopk", "jumprelu", "matryoshka"])
def test_what_emlab_trains_is_left_bit_for_bit(architecture):
    recipe = SaeRecipe(architecture=architecture, d_sae=D_SAE, k=K, tokens=256, batch_size=64, warm_up=0, decay=0)
    sae = fit_sae(InMemory(X.repeat(4, 1), Site("resid_post", 0)), recipe, progress=False).sae
    before = {name: value.clone() for name, value in sae.state_dict().items()}
    assert fold(sae) is sae
    assert all(torch.equal(before[name], value) for name, value in sae.state_dict().items())
    assert torch.equal(encode(sae, X), sae.encode(X))


@pytest.mark.parametrize("folder", sorted(Path("sae_checkpoints").glob("*/")), ids=lambda folder: folder.name)
def test_what_ships_is_left_as_it_is(folder):
    sae, kept = load_sae(folder), load_file(folder / "sae_weights.safetensors")
    exact = kept["W_dec"].dtype == torch.float32  # rows of unit length, rounded to float16, are brought back to it
    close = partial(torch.allclose, rtol=2**-10, atol=0.0) if not exact else torch.equal
    assert all(close(value, kept[name].float()) for name, value in sae.state_dict().items()) and kept
    assert close(writes(sae, [0, 5]), kept["W_dec"][[0, 5]].float())


@pytest.mark.parametrize("scaled", ["layer_norm", "constant_norm_rescale"])
def test_what_a_latent_writes_must_be_one_vector(scaled):
    with pytest.raises(EmlabError, match=f"normalises activations by {scaled}, so what a latent writes differs"):
        writes(build("standard", normalize_activations=scaled), [0])


def test_a_scale_that_was_never_folded_in_is_refused_and_one_that_lies_beside_is_folded_in(tmp_path):
    raw = build("jumprelu", normalize_activations="expected_average_only_in")
    raw.save_model(tmp_path / "sae")
    with pytest.raises(EmlabError, match=r"by what they were scaled is not with it \(activation_scaler.json\): fold"):
        load_sae(tmp_path / "sae")
    for use in (encode, lambda sae, x: writes(sae, [0])):
        with pytest.raises(EmlabError, match="its weights do not fit raw ones"):
            use(raw, X)
    (tmp_path / "sae" / "activation_scaler.json").write_text(json.dumps({"scaling_factor": 0.25}))
    loaded = load_sae(tmp_path / "sae")
    same(loaded.decode(loaded.encode(X)), raw.decode(raw.encode(X / 4)) * 4)


def test_architectures_whose_rows_cannot_be_made_unit_are_named(tmp_path):
    config = {"d_in": D_IN, "d_sae": 64, "metadata": {}}
    pursuit = SAE.from_dict({"architecture": "matching_pursuit", **config})
    pursuit.save_model(tmp_path / "pursuit")
    with pytest.raises(EmlabError, match="a matching_pursuit whose decoder rows are not unit vectors"):
        load_sae(tmp_path / "pursuit")
    pursuit.W_dec.data /= pursuit.W_dec.norm(dim=1, keepdim=True)
    pursuit.save_model(tmp_path / "unit")
    same(load_sae(tmp_path / "unit").encode(X), pursuit.encode(X))
    temporal = SAE.from_dict({"architecture": "temporal", **config, "n_heads": 1, "bottleneck_factor": 8})
    temporal.save_model(tmp_path / "temporal")
    with pytest.raises(EmlabError, match="a temporal one, which reads a token by those before it"):
        load_sae(tmp_path / "temporal")


def test_nobody_else_reads_a_decoder_or_an_encoder_in_its_own_units():
    """Outside of emlab.saes latents are read by `encode` and written by `writes` or `decoder_rows`."""
    package = Path(emlab.__file__).parent
    for file in package.rglob("*.py"):
        if package / "saes" not in file.parents:
            found = re.search(r"W_dec|W_enc|\bsae\.(encode|decode)\(", file.read_text(encoding="utf-8"))
            assert found is None, f"{file.relative_to(package)} uses {found[0]}"
