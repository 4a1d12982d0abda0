"""Steps are timed only beside steps that do the same; what rounding alone puts apart is no reason to refuse."""

import pytest
import torch

SETTING = {"d_in": 32, "d_sae": 256, "k": 4, "batch": 64, "learning_rate": 3e-3, "features": 48, "batches": 8}


@pytest.fixture(scope="module")
def batches(tmp_path_factory):
    from sae_step import planted

    path = tmp_path_factory.mktemp("planted") / "data.pt"
    planted(SETTING, path)
    return torch.load(path, weights_only=True)["train"]


def losses(batches, fast, steps=5, rounding=0.0, **changed):
    from itertools import cycle, islice

    from sae_step_peers import saelens

    torch.manual_seed(0)
    step, sae = saelens({**SETTING, **changed}, fast)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.mul_(1 + rounding * torch.randn_like(parameter))
    return [step(batch) for batch in islice(cycle(batches), steps)]


def test_the_fast_step_is_timed_beside_saelens(batches):
    from sae_step import refuse_unlike

    refuse_unlike(losses(batches, True), losses(batches, False), SETTING)


def test_rounding_that_has_grown_is_no_reason_to_refuse(batches):
    from sae_step import apart_by, refuse_unlike

    asked = {"steps": 120, "learning_rate": 1e-1}
    plain, rounded = losses(batches, False, **asked), losses(batches, False, rounding=1e-7, **asked)
    assert apart_by(rounded, plain) > 1e-3  # of the same code, begun one rounding apart
    refuse_unlike(rounded, plain, SETTING)


@pytest.mark.parametrize(
    "wrong", [{"learning_rate": 3.03e-3}, {"k": 3}, {"k": 5}], ids=["a rate of 1% more", "a latent less", "one more"]
)
def test_another_step_is_refused(batches, wrong):
    from sae_step import refuse_unlike

    with pytest.raises(SystemExit, match="of the first 5 losses one is .* apart, and rounding explains 4.3e-06"):
        refuse_unlike(losses(batches, True, **wrong), losses(batches, False), SETTING)


def test_a_kernel_with_a_wrong_gradient_is_refused(batches, monkeypatch):
    from sae_step import refuse_unlike

    from emlab.saes import fast_topk

    right = fast_topk.topk_step

    def wrong(x, encoder, b_enc, decoder, *more):
        """The decoder's gradient leaves out 8 of 256 latents."""
        return right(x, encoder, b_enc, torch.cat([decoder[:8].detach(), decoder[8:]]), *more)

    expected = losses(batches, False)
    refuse_unlike(losses(batches, True), expected, SETTING)
    monkeypatch.setattr(fast_topk, "topk_step", wrong)
    with pytest.raises(SystemExit, match="does not train as SAELens does"):
        refuse_unlike(losses(batches, True), expected, SETTING)
