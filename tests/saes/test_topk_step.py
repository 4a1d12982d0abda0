"""The TopK step against the dense one that autograd differentiates."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emlab.saes import topk_step as module
from emlab.saes.topk_step import TopKRule, Workspace, pre_activations, top_latents, topk_step

N, D, M, K, AUX = 5, 6, 24, 3, 4
RULES = [TopKRule(K, AUX, rescale, center) for rescale, center in itertools.product((True, False), repeat=2)]
DEAD = torch.tensor([1, 4, 5, 9, 10, 17, 23])


def inputs(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shapes = ((N, D), (M, D), (M,), (M, D), (D,))
    x, enc, b_enc, dec, b_dec = (torch.randn(*shape, generator=generator, dtype=dtype) for shape in shapes)
    return [value.requires_grad_() for value in (x, enc.T, b_enc, dec, b_dec)]


def dense(x, W_enc, b_enc, W_dec, b_dec, rule, dead):
    """Reconstruction and auxiliary reconstruction, as SAELens writes them."""
    norms = W_dec.norm(dim=-1) if rule.rescale else torch.ones(M, dtype=x.dtype)
    hidden = ((x - b_dec if rule.center else x) @ W_enc + b_enc) * norms

    def keep(values, k):
        top = values.topk(k)
        return torch.zeros_like(hidden).scatter(1, top.indices, top.values)

    only_dead = torch.full_like(hidden, -torch.inf)
    only_dead[:, dead] = hidden[:, dead]
    return (keep(hidden, rule.k).relu() / norms) @ W_dec + b_dec, (keep(only_dead, rule.k_aux) / norms) @ W_dec


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("dead", [DEAD, DEAD[:AUX]], ids=["more dead than kept", "all dead kept"])
def test_values_and_every_gradient_are_those_of_the_dense_step(rule, dead):
    ours, theirs = inputs(), inputs()
    got = topk_step(*ours, rule, dead)
    want = dense(*theirs, rule, dead)
    assert torch.allclose(got.reconstruction, want[0])
    assert torch.allclose(got.auxiliary, want[1])
    weight = torch.linspace(-1, 2, N * D, dtype=torch.float64).view(N, D)
    ((got.reconstruction * weight).sum() + (got.auxiliary.cos() * weight).sum()).backward()
    ((want[0] * weight).sum() + (want[1].cos() * weight).sum()).backward()
    for name, one, other in zip(("x", "W_enc", "b_enc", "W_dec", "b_dec"), ours, theirs, strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-10), name


def test_gradients_are_those_of_finite_differences():
    def both(*tensors):
        step = topk_step(*tensors, RULES[0], DEAD)
        return step.reconstruction, step.auxiliary

    assert torch.autograd.gradcheck(both, inputs())


def test_only_positive_activations_are_kept_and_pass_gradients():
    x, W_enc, b_enc, W_dec, b_dec = inputs()
    b_enc.data[:] = -100.0
    step = topk_step(x, W_enc, b_enc, W_dec, b_dec, RULES[0])
    assert step.auxiliary is None
    assert (step.activations == 0).all()
    assert torch.equal(step.reconstruction, b_dec.expand(N, D))
    step.reconstruction.sum().backward()
    assert (W_enc.grad == 0).all() and (W_dec.grad == 0).all() and (b_enc.grad == 0).all()
    assert (b_dec.grad == N).all()


def test_the_kept_activations_are_those_of_all():
    step = topk_step(*inputs(), RULES[0])
    assert torch.equal(step.pre_activations.gather(1, step.index).relu(), step.activations)
    assert torch.equal(step.pre_activations.topk(K).values, step.pre_activations.gather(1, step.index).sort(1, True)[0])


@settings(max_examples=60, deadline=None)
@given(
    width=st.sampled_from([1, 7, 32, 64, 96, 256, 1024]),
    k=st.integers(1, 6),
    ties=st.booleans(),
    seed=st.integers(0, 9),
)
def test_the_top_latents_are_the_largest(width, k, ties, seed):
    k = min(k, width)
    values = torch.randn(4, width, generator=torch.Generator().manual_seed(seed))
    values = values.round() if ties else values
    found, index = top_latents(values, k)
    assert torch.equal(found.sort(descending=True).values, values.topk(k).values)
    assert torch.equal(values.gather(1, index), found)
    assert all(len(set(row)) == k for row in index.tolist()), "no latent twice"


@pytest.mark.parametrize("norms", [None, torch.arange(1.0, M + 1)], ids=["plain", "scaled"])
@pytest.mark.parametrize("onednn", [True, False])
def test_pre_activations_are_the_dense_product(norms, onednn, monkeypatch):
    x, W_enc, b_enc, _, _ = (value.detach() for value in inputs(torch.float32))
    if onednn:
        if not module.onednn_serves(x):
            pytest.skip("this build of PyTorch has no oneDNN")
        monkeypatch.setattr(module, "CHUNK", 4 * N * 7)  # pieces of seven latents
    else:
        monkeypatch.setattr(module, "onednn_serves", lambda x: False)
    want = (x @ W_enc + b_enc) * (1.0 if norms is None else norms)
    assert torch.allclose(pre_activations(x, W_enc, b_enc, norms, torch.empty(N, M)), want, atol=1e-4)


def test_a_workspace_changes_no_gradient_and_holds_them():
    ours, theirs = inputs(), inputs()
    workspace = Workspace()
    for _ in range(2):  # the second step writes over the first
        for value in ours:
            value.grad = None
        topk_step(*ours, RULES[0], DEAD, workspace).reconstruction.square().sum().backward()
    topk_step(*theirs, RULES[0], DEAD).reconstruction.square().sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.grad, other.grad)
    held = {array.data_ptr() for array in workspace.arrays.values()}
    assert {ours[1].grad.data_ptr(), ours[3].grad.data_ptr()} <= held, "autograd copied a gradient"


def test_gradients_add_up_where_a_workspace_is_used_twice():
    once, twice = inputs(), inputs()
    workspace = Workspace()
    topk_step(*once, RULES[0]).reconstruction.square().sum().backward()
    for _ in range(2):
        topk_step(*twice, RULES[0], None, workspace).reconstruction.square().sum().backward()
    for one, two in zip(once, twice, strict=True):
        assert torch.allclose(2 * one.grad, two.grad)
