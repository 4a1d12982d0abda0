"""Overflow of 16-bit numbers: where exactly it begins, and what still fits."""

import math

import pytest
import torch

from emlab.interventions import Replace, Steer
from emlab.interventions.overflow import overflowed, room_of
from emlab.sites import Site

SITE = Site("resid_post", 1)
MOST = torch.finfo(torch.float16).max  # 65504; from 65520 on rounding gives infinity
HERE = torch.tensor([[True, False]])


def room(strength, h=(0.0, 100.0)):
    edit = Steer(SITE, torch.tensor([0.0, 1.0]), strength)
    halves = torch.tensor([[list(h), [0.0, MOST]]], dtype=torch.float16)  # the second token is not edited
    new = edit.edit(halves, HERE)
    return float(room_of(edit, halves, new, HERE)), bool(new.isinf().any())


@pytest.mark.parametrize("strength", [65419.0, 65419.9, 65420.1, 65421.0, -65619.0, -65621.0])
def test_room_is_less_than_one_where_a_steering_overflows_and_only_there(strength):
    left, infinite = room(strength)
    assert (left < 1) == infinite == (not -65520 < strength + 100 < 65520)


def test_what_is_said_to_fit_does():
    edit = Steer(SITE, torch.tensor([0.0, -1.0]), 2000.0, scale=50.0)
    halves = torch.tensor([[[0.0, -30000.0], [0.0, 0.0]]], dtype=torch.float16)
    left = float(room_of(edit, halves, edit.edit(halves, HERE), HERE))
    text = str(overflowed(edit, left, torch.float16))
    assert text.startswith("The Steer at resid_post.1 overflows the model's float16: the largest strength that fits")
    named = float(text.split("fits is ")[1].split(";")[0])
    assert named == math.floor(35520 / 50)
    assert Steer(SITE, edit.direction, named, 50.0).edit(halves, HERE).isfinite().all()
    assert "fits is -710;" in str(overflowed(Steer(SITE, -edit.direction, -2000.0, 50.0), left, torch.float16))


def test_what_was_infinite_before_is_no_overflow():
    assert room(1.0, (0.0, math.inf)) == (math.inf, True)
    edit = Replace(SITE, lambda h: h * 4)
    for value, fits in ((math.inf, True), (20000.0, False), (2.0, True)):
        h = torch.tensor([[[value], [MOST]]], dtype=torch.float16)
        assert bool(room_of(edit, h, edit.edit(h, HERE), HERE) >= 1) is fits
    assert "load the model in float32" in str(overflowed(edit, 0.0, torch.float16))
