"""The fused Adam against PyTorch's own."""

import copy

import torch

from emlab.saes.fused_adam import FusedAdam


def parameters():
    """A transposed matrix, a matrix and a vector."""
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(2, 7, 5, generator=generator)
    values = [matrices[0].T, matrices[1].clone(), torch.randn(5, generator=generator)]
    return [torch.nn.Parameter(value) for value in values]


def give_gradients(params, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in params:
        parameter.grad = torch.empty_like(parameter).copy_(torch.randn(parameter.shape, generator=generator))


def step(optimizer, params, seeds):
    for seed in seeds:
        give_gradients(params, seed)
        optimizer.step()


def test_it_is_adam():
    ours, theirs = parameters(), parameters()
    assert not ours[0].is_contiguous()
    step(FusedAdam(ours, lr=1e-2, betas=(0.8, 0.99)), ours, range(20))
    step(torch.optim.Adam(theirs, lr=1e-2, betas=(0.8, 0.99)), theirs, range(20))
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    assert ours[0].stride() == theirs[0].stride()


def test_either_goes_on_from_the_others_state():
    whole = parameters()
    step(torch.optim.Adam(whole, lr=1e-2), whole, range(10))
    for first, second in ((torch.optim.Adam, FusedAdam), (FusedAdam, torch.optim.Adam), (FusedAdam, FusedAdam)):
        params = parameters()
        begun = first(params, lr=1e-2)
        step(begun, params, range(5))
        state = copy.deepcopy(begun.state_dict())
        for held in state["state"].values():  # as a checkpoint of parameters that are not transposed has it
            held.update({name: value.contiguous() for name, value in held.items()})
        gone_on = second(params, lr=1e-2)
        gone_on.load_state_dict(state)
        step(gone_on, params, range(5, 10))
        for one, other in zip(params, whole, strict=True):
            assert torch.allclose(one, other, atol=1e-6), f"{first.__name__} to {second.__name__}"


def test_what_it_saves_suits_parameters_that_are_not_transposed():
    """PyTorch's fused kernel takes a parameter and a state laid out otherwise, and is wrong: no trace of either."""
    whole = parameters()
    step(torch.optim.Adam(whole, lr=1e-2), whole, range(10))
    params = parameters()
    begun = FusedAdam(params, lr=1e-2)
    step(begun, params, range(5))
    plain = [torch.nn.Parameter(parameter.detach().clone().contiguous()) for parameter in params]
    gone_on = torch.optim.Adam(plain, lr=1e-2)
    gone_on.load_state_dict(copy.deepcopy(begun.state_dict()))
    step(gone_on, plain, range(5, 10))
    for one, other in zip(plain, whole, strict=True):
        assert torch.allclose(one, other, atol=1e-6)
