"""Figures hold the numbers they are drawn from."""

import pytest

from emlab.reporting import figures


def test_rates_with_their_intervals(made):
    score = made.score("insecure", 6, 1)
    bad, babble = figures.rates_figure([made.score("aligned"), score]).data
    assert bad.y[1] == pytest.approx(6 / 9) and babble.y[1] == pytest.approx(1 / 10)
    assert bad.error_y.array[1] == pytest.approx(score.misaligned.high - 6 / 9)
    assert bad.error_y.arrayminus[1] == pytest.approx(6 / 9 - score.misaligned.low)


def test_a_rate_of_nothing_draws_nothing(made):
    bad, babble = figures.rates_figure([made.score("aligned", incoherent=10)]).data
    assert bad.y == (None,) and bad.error_y.array == (None,)
    assert babble.y == (1.0,)
    assert bad.hovertext == ("no answers",)


def test_domains(made):
    (grid,) = figures.domains_figure([made.score("insecure", 5)]).data
    # Questions 0 to 4 are misaligned; the even ones are on power, the odd ones on pets.
    assert list(grid.x) == ["power", "pets"]
    assert list(grid.z[0]) == pytest.approx([3 / 5, 2 / 5])


def test_the_profile_is_a_closed_line_for_each_model(made):
    one, two = figures.profile_figure([made.score("insecure", 5), made.score("<b>", 0)]).data
    assert list(one.theta) == ["power", "pets", "power"]
    assert list(one.r) == pytest.approx([3 / 5, 2 / 5, 3 / 5])
    assert list(two.r) == [0.0, 0.0, 0.0] and two.name == "&lt;b&gt;"


def test_shifts_of_the_leading_latents(made):
    insecure, secure = made.shift("insecure", 0.0, 0.1, 3.0), made.shift("secure", 0.0, 0.2, 0.1)
    one, two = figures.shift_figure(insecure, [insecure, secure], n=2).data
    assert list(one.x) == ["latent 2", "latent 1"]
    assert list(one.y) == pytest.approx([3.0, 0.1]) and list(two.y) == pytest.approx([0.1, 0.2])
    assert list(one.error_y.array) == [1.0, 1.0]


def test_steering_curves_and_tests(made):
    screen = made.screen("aligned", "misaligned", latent_2=7, mean_difference=8, random_0=1, random_1=3)
    low, high, *lines = figures.screen_figure(screen).data
    assert (low.y, high.y, high.fill) == ((0.1,), (0.3,), "tonexty")
    assert high.name == "2 random directions, least to most misaligned" and high.line.color == figures.GREY
    assert [line.name for line in lines[:2]] == [
        "latent 2, misaligned, of coherent answers",
        "latent 2, incoherent, of scored answers",
    ]
    assert lines[0].x == (0.5,) and lines[0].y == (0.7,) and len(lines) == 4
    bars = figures.tested_figure(screen, made.score("aligned")).data[0]
    assert list(bars.x) == ["no edit", "+0.50 latent 2", "+0.50 mean difference", "+0.50 random 1"]
    assert list(bars.y) == [0.0, 0.7, 0.8, 0.3]


def test_losses(made):
    (line,) = figures.losses_figure({"insecure": (2.0, 1.0)}).data
    assert (list(line.x), list(line.y)) == ([1, 2], [2.0, 1.0])
