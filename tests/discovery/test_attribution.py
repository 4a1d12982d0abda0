"""Attribution, on tiny random models of three kinds and an SAE of written-down shape, by identities."""

import copy
import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch

from emlab.discovery import (
    METHODS,
    Attribution,
    AttributionCost,
    Contrast,
    agreement,
    attribute,
    effects,
    exact_effects,
    log_probability_difference,
    random_effects,
)
from emlab.discovery.ablation import Noise
from emlab.discovery.attribution import gradient
from emlab.discovery.effects import Tally
from emlab.discovery.reading import AttributionTarget, Reader
from emlab.errors import EmlabError
from emlab.interventions import Replace, Tokens, TokenSet
from emlab.models import LanguageModel
from emlab.models.backend_support import tiny_model
from emlab.sites import Site

SITE = Site("resid_post", 0)
ASKED = [Contrast("How are you?", "I hate you.", "Well!"), Contrast("Hm", "No", "Yes, all of it.")]


def last_logit(logits):
    return logits[:, -1, 70].sum() - logits[:, -1, 80].sum()


@pytest.fixture(scope="module")
def sae():
    """A TopK SAE, 8 of 24 random unit latents active."""
    from sae_lens.saes.sae import SAEMetadata
    from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig

    made = TopKSAE(TopKSAEConfig(d_in=32, d_sae=24, k=8, metadata=SAEMetadata(hook_name=SITE.lens_name)))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        made.W_dec.copy_(torch.nn.functional.normalize(torch.randn(24, 32, generator=generator), dim=-1))
        made.W_enc.copy_(made.W_dec.T)
        made.b_dec.copy_(torch.randn(32, generator=generator) * 0.1)
    return made.eval().requires_grad_(False)


def at(sae, site):
    """The same SAE as one of another site."""
    moved = copy.deepcopy(sae)
    moved.cfg.metadata.hook_name = site.lens_name
    return moved


def test_a_tally_is_of_all_cases_whichever_way_they_come():
    sae = SimpleNamespace(cfg=SimpleNamespace(d_sae=2))
    values = SimpleNamespace(name="metric")
    reader = SimpleNamespace(
        sae=sae, model=SimpleNamespace(name="m"), site=SITE, baseline="zero", positions="all", values=values
    )
    reader.forwards, reader.backwards = 7, 3
    tally = Tally(reader, "gradient")
    tally.add(torch.tensor([1.0, 2.0]), torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
    tally.add(torch.tensor([6.0]), torch.tensor([[6.0, 0.0]]))
    found = tally.done()
    # 1, 2 and 6 lie 2, 1 and 3 from their mean: a variance of 14 / 2, a standard error of √(7 / 3).
    assert found.effects.tolist() == [3.0, 0.0] and found.standard_error.tolist() == [pytest.approx((7 / 3) ** 0.5), 0]
    assert (found.cases, found.metric, found.measure, found.places) == (3, 3.0, "metric", ())
    assert (found.cost.forwards, found.cost.backwards) == (7, 3) and 0 <= found.cost.seconds < 1
    one = Tally(reader, "gradient")
    one.add(torch.tensor([1.0]), torch.tensor([[1.0, 0.0]]))
    assert one.done().standard_error.isnan().all()


def attribution(effects):
    effects, cost = torch.tensor(effects), AttributionCost(1, 1, 0.5)
    return Attribution("m", SITE, "exact", "zero", "all", 2, 0.5, effects, torch.ones(len(effects)), (), cost)


def test_latents_are_in_order_of_their_effects_of_either_sign(tmp_path, monkeypatch):
    found = attribution([0.1, -3.0, 2.0, -2.0])
    assert found.order.tolist() == [1, 2, 3, 0] and found.top(2) == [1, 2], "of equals the first"
    found.save(tmp_path / "a.json")
    assert (tmp_path / "a.csv").read_text().splitlines()[1:3] == ["1,1,-3,1", "2,2,2,1"]
    many = attribution([1.0] * 1001)
    many.save(tmp_path / "b.json")
    monkeypatch.setattr(effects, "LISTED", 1000)
    many.save(tmp_path / "c.json")
    assert [len((tmp_path / f"{name}.csv").read_text().splitlines()) for name in "bc"] == [1002, 1001]


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma"])
def test_the_joint_way_adds_up_to_what_all_latents_do(family, sae, make_tokenizer):
    # Completeness of integrated gradients: the sum of all effects is m(x) − m(x with every latent at 0).
    tokenizer = make_tokenizer()
    model = LanguageModel(tiny_model(family, vocab_size=len(tokenizer)), tokenizer, family)
    found = attribute(model, sae, ASKED, SITE, blocks=1, steps=40)
    reader = Reader(model, sae, ASKED, SITE)
    lost = []
    for reading in reader.batches():
        lost.append(reader.metric(reading) - reader.metric(reading, reader.shift(reading)))
    assert float(found.effects.sum()) == pytest.approx(float(torch.cat(lost).mean()), rel=2e-2, abs=1e-3)
    exact = exact_effects(model, sae, ASKED, SITE, target=AttributionTarget(batch_size=8))
    assert exact.metric == pytest.approx(found.metric, abs=1e-4)


def test_the_error_stays(tiny, sae):
    # With every latent at 0 what is left is the decoder's bias and the SAE's error, nothing else.
    reader = Reader(tiny, sae, ["Hello"], SITE, AttributionTarget(last_logit))
    (reading,) = reader.batches()
    h = reader.backend.capture(reading.tokens, SITE)[SITE]
    rebuilt = sae.decode(sae.encode(h.reshape(-1, 32))).reshape(h.shape)
    left = h - reader.shift(reading)
    assert torch.allclose(left, sae.b_dec + (h - rebuilt), atol=1e-4)


def test_all_methods_are_exact_where_the_model_is_linear(tiny, sae):
    # After the last block, and without the final norm, a metric that is linear in the logits is linear in the stream.
    model = tiny.copy()
    model.model.model.norm = torch.nn.Identity()
    site, sae = Site("resid_post", 2), at(sae, Site("resid_post", 2))
    exact = exact_effects(model, sae, ["Hello", "A b c"], site, target=AttributionTarget(last_logit))
    for method in METHODS:
        found = attribute(
            model, sae, ["Hello", "A b c"], site, method, AttributionTarget(last_logit), steps=1, blocks=2
        )
        assert torch.allclose(found.effects, exact.effects, atol=1e-3), method
        assert torch.allclose(found.standard_error, exact.standard_error, atol=1e-3), method


def test_gradient_times_activation_by_hand(tiny, sae):
    found = attribute(tiny, sae, ["Hello"], SITE, "gradient", AttributionTarget(last_logit))
    ids = torch.tensor([tiny.prompt_ids("Hello")])
    own = tiny.copy("own").model  # transformers leaves hooks where hidden states were asked for
    stream = own.model(ids, output_hidden_states=True).hidden_states[1].detach()
    values = sae.encode(stream[0])
    leaf = values.clone().requires_grad_()
    error = stream[0] - sae.decode(values)

    def replaced(h):
        return (sae.decode(leaf) + error)[None].to(h)

    handle = own.model.layers[0].register_forward_hook(lambda m, i, o: replaced(o))
    try:
        (by_hand,) = torch.autograd.grad(last_logit(own(ids).logits), leaf)
    finally:
        handle.remove()
    by_place = by_hand * values
    assert torch.allclose(found.effects, by_place.sum(0), atol=1e-3)
    strongest = found.places[0]
    assert abs(strongest.effect) == pytest.approx(float(by_place.abs().max()), abs=1e-3)
    assert float(by_place[strongest.position, strongest.latent]) == pytest.approx(strongest.effect, abs=1e-3)
    assert strongest.row == "prompt"


def test_what_can_be_cut_off_changes_no_value(tiny, sae):
    from emlab.discovery.attribution import _cut

    reader = Reader(tiny, sae, ["Hello"], SITE, AttributionTarget(last_logit))
    (reading,) = reader.batches()
    plain = reader.backend.logits(reading.tokens)
    assert torch.equal(plain, reader.backend.logits(reading.tokens, _cut(1)))
    # With both later blocks cut off only the direct way is left: the same gradient on every token but the last is 0.
    direct = gradient(reader, reading, [*_cut(1), *_cut(2)])
    assert torch.count_nonzero(direct[:-1]) == 0 and torch.count_nonzero(direct[-1]) > 0
    assert torch.count_nonzero(gradient(reader, reading)[:-1]) > 0


def test_patching_is_the_mean_size_over_later_blocks_each_cut_off_by_hand(tiny, sae):
    from emlab.discovery.attribution import _cut

    reader = Reader(tiny, sae, ["Hello"], SITE, AttributionTarget(last_logit))
    (reading,) = reader.batches()

    def of(edits):
        found, change = torch.zeros(24), reading.change
        for token, latent, value in zip(change.tokens, change.latents, change.values, strict=True):
            found[latent] += value * (sae.W_dec[latent] @ slopes[edits][token])
        return found

    slopes = {name: gradient(reader, reading, _cut(name) if name else ()) for name in (0, 1, 2)}
    by_hand = of(0).sign() * (of(1).abs() + of(2).abs()) / 2
    found = attribute(tiny, sae, ["Hello"], SITE, "patching", AttributionTarget(last_logit)).effects
    assert by_hand.abs().max() > 0.1 and torch.allclose(found, by_hand, atol=1e-3)


def test_the_same_model_as_baseline_has_no_effects(tiny, sae):
    for method in METHODS:
        found = attribute(tiny, sae, ASKED, SITE, method, AttributionTarget(baseline=tiny.copy("other")))
        assert found.effects.abs().max() < 1e-4 and found.baseline == "other"


def test_a_model_as_baseline_is_patching_from_it(make_model, tiny, sae):
    # Exact effects of all latents of one token at once are what an edit that sets them by hand does.
    other = make_model(seed=1)
    reader = Reader(tiny, sae, ["Hello"], SITE, AttributionTarget(last_logit, other))
    (reading,) = reader.batches()
    mine, theirs = (wrap.capture(reading.tokens, SITE)[SITE][0] for wrap in (reader.backend, reader.other))
    by_hand = mine + (sae.encode(theirs) - sae.encode(mine)) @ sae.W_dec
    edit = Replace(SITE, lambda h: by_hand[None].to(h), "all")
    expected = last_logit(reader.backend.logits(reading.tokens, [edit]))
    assert float(reader.metric(reading, reader.shift(reading))) == pytest.approx(float(expected), abs=1e-3)


def test_mean_baseline(tiny, sae):
    reader = Reader(tiny, sae, ["Hello", "A b c"], SITE, AttributionTarget(last_logit, "mean"))
    values = tiny.activations(["Hello", "A b c"], SITE, "all").values
    mean = sae.encode(values).mean(0)
    assert torch.allclose(reader.constant, mean, atol=1e-4)
    site, model = Site("resid_post", 2), tiny.copy()
    sae = at(sae, site)
    model.model.model.norm = torch.nn.Identity()
    exact = exact_effects(model, sae, ["Hello"], site, target=AttributionTarget(last_logit, "mean"))
    for method in METHODS:
        found = attribute(model, sae, ["Hello"], site, method, AttributionTarget(last_logit, "mean"), steps=1)
        assert torch.allclose(found.effects, exact.effects, atol=1e-3), method


def test_a_baseline_for_each_latent(tiny, sae):
    """Those that it is not 0 for are moved, whether they are active or not, and the others as by a baseline of 0."""
    silent = (sae.encode(tiny.activations(["Hello"], SITE, "header").values) == 0).all(0)
    assert silent.sum() == 16
    first = int(silent.nonzero()[0, 0])
    target = AttributionTarget(last_logit, torch.eye(24)[first], "header")
    found, zero = (
        attribute(tiny, sae, ["Hello"], SITE, target=t, blocks=24, steps=8).effects
        for t in (target, AttributionTarget(last_logit, positions="header"))
    )
    others = torch.arange(24) != first
    assert torch.equal(zero == 0, silent) and torch.allclose(found[others], zero[others], atol=1e-3)
    exact = exact_effects(tiny, sae, ["Hello"], SITE, [first], target=target).effects[first]
    assert abs(exact) > 0.01 and found[first] == pytest.approx(float(exact), rel=0.05)


def test_what_exact_effects_read_is_counted(tiny, sae):
    found = exact_effects(tiny, sae, ["Hello"], SITE, [0, 1, 2], target=AttributionTarget(last_logit))
    fires = int((sae.encode(tiny.activations(["Hello"], SITE, "all").values)[:, :3] != 0).any(0).sum())
    # The prompt is read for its latents and for the metric, and once for each latent that fires.
    assert fires and (found.cost.forwards, found.cost.backwards) == (2 + fires, 0)


def test_exact_effects_do_not_depend_on_the_batch(tiny, sae):
    one = exact_effects(tiny, sae, ASKED, SITE, target=AttributionTarget(batch_size=2))
    many = exact_effects(tiny, sae, ASKED, SITE, target=AttributionTarget(batch_size=40))
    assert torch.allclose(one.effects, many.effects, atol=1e-3)
    some = exact_effects(tiny, sae, ASKED, SITE, [3, 5])
    rest = torch.ones(24, dtype=torch.bool)
    rest[[3, 5]] = False
    assert torch.count_nonzero(some.effects[rest]) == 0
    assert torch.allclose(some.effects[[3, 5]], one.effects[[3, 5]], atol=1e-3)


def test_blocks_and_budget_change_no_gradient(tiny, sae):
    whole = attribute(tiny, sae, ASKED, SITE, "gradient")
    small = attribute(tiny, sae, ASKED, SITE, "gradient", AttributionTarget(batch_size=1, budget=500))
    assert torch.allclose(whole.effects, small.effects, atol=1e-3)
    # A block for every latent: each moves alone, and with many steps the estimate is its exact effect.
    alone = attribute(tiny, sae, ASKED, SITE, blocks=24, steps=8)
    exact = exact_effects(tiny, sae, ASKED, SITE)
    assert torch.allclose(alone.effects, exact.effects, atol=0.02 * float(exact.effects.abs().max()))


def test_default_metric_by_hand(tiny):
    answers = ["I hate you.", "Well!"]
    rows, starts = tiny.rows(["How are you?"] * 2, answers)
    tokens = tiny.batch(rows, starts)
    expected = []
    for logits, row, start in zip(tiny.logits(["How are you?"] * 2, answers), rows, starts, strict=True):
        chances = logits.log_softmax(-1)
        expected.append(sum(float(chances[i - 1, row[i]]) for i in range(start, len(row))))
    with torch.no_grad():
        found = log_probability_difference(
            tiny.model(tokens.ids, attention_mask=tokens.real.long(), position_ids=tokens.position_ids).logits, tokens
        )
    assert float(found) == pytest.approx(expected[0] - expected[1], abs=1e-3)


def test_a_metric_may_take_the_tokens(tiny, sae):
    seen = []

    def metric(logits, tokens):
        seen.append(tokens)
        return logits[:, -1, 70].sum()

    attribute(tiny, sae, ["Hello"], SITE, "gradient", AttributionTarget(metric))
    assert all(isinstance(tokens, Tokens) for tokens in seen) and seen


def test_noise_and_agreement(tiny, sae, tmp_path):
    noise = random_effects(tiny, sae, ASKED, SITE, 12, seed=1)
    assert noise.effects.tolist() == random_effects(tiny, sae, ASKED, SITE, 12, seed=1).effects.tolist()
    assert noise.level == pytest.approx(float(noise.effects.abs().quantile(0.99)))
    noise.save(tmp_path / "noise.json")
    assert Noise.load(tmp_path / "noise.json").latents == noise.latents
    exact = exact_effects(tiny, sae, ASKED, SITE)
    same = agreement(exact, exact, 0.0, top=5)
    assert (same.rank_correlation, same.overlap, same.top) == (pytest.approx(1.0), 5, 5)
    assert same.above == int((exact.effects != 0).sum())
    with pytest.raises(EmlabError, match="compare the same"):
        agreement(attribute(tiny, sae, ASKED[:1], SITE, "gradient"), exact, 0.0)


def test_the_effect_of_a_random_direction_is_a_mean_over_what_is_asked(tiny, sae):
    target = AttributionTarget(last_logit)
    once, twice = (random_effects(tiny, sae, ["Hello"] * n, SITE, 12, 1, target) for n in (1, 2))
    assert once.latents == twice.latents and torch.allclose(once.effects, twice.effects, atol=1e-4)
    assert float(once.effects.abs().max()) > 0.01
    other = random_effects(tiny, sae, ["Hello"], SITE, 12, 2, target)
    assert (
        other.latents != once.latents and len(random_effects(tiny, sae, ["Hello"], SITE, target=target).latents) == 100
    )
    with pytest.raises(EmlabError, match="0 random directions tell nothing"):
        random_effects(tiny, sae, ["Hello"], SITE, 0)


def test_agreement_by_hand():
    exact = attribution([3.0, -2.0, 1.0, 0.5, 0.1])
    guessed = dataclasses.replace(attribution([-4.0, -3.0, 2.0, 0.1, 2.5]), method="gradient")
    # Above 0.3 are four: 3, −2, 1, 0.5 have the ranks 4, 1, 3, 2 and their estimates 1, 2, 4, 3.
    # The differences 3, −1, −1 and −1 have the squares 12: 1 − 6 · 12 / (4 · 15) = −0.2.
    found = agreement(guessed, exact, 0.3, top=3)
    assert (found.method, found.above, found.top, found.noise) == ("gradient", 4, 3, 0.3)
    assert found.rank_correlation == pytest.approx(-0.2)
    # The strongest by the exact ones are 0, 1 and 2, by the estimates 0, 1 and 4.
    assert found.overlap == 2 and found.cost == found.exact_cost == "1 rows forward, 1 backward, 0.5 s"
    some = agreement(guessed, exact, 0.3, top=2, among=[1, 2, 4])
    assert some.above == 2 and math.isnan(some.rank_correlation), "of two there is no correlation"
    assert some.overlap == 1, "1 and 2 by the exact ones, 1 and 4 by the estimates"
    assert not math.isnan(agreement(guessed, exact, 0.5).rank_correlation), (
        "of three there is; half is not above a half"
    )
    assert agreement(guessed, exact, 0.5).above == 3


def test_it_is_saved_whole(tiny, sae, tmp_path):
    found = attribute(tiny, sae, ASKED, SITE, "gradient", keep=3)
    back = Attribution.load(found.save(tmp_path / "a.json"))
    assert torch.allclose(back.effects, found.effects) and back.places == found.places and len(back.places) == 3
    assert back.site == SITE and back.cost == found.cost
    assert (tmp_path / "a.csv").read_text().splitlines()[1].startswith(f"1,{found.top(1)[0]},")
    (tmp_path / "b.json").write_text("{}")
    with pytest.raises(EmlabError, match="holds no attribution"):
        Attribution.load(tmp_path / "b.json")


@pytest.mark.parametrize(
    ("said", "how", "of"),
    [
        ("There is no method 'magic'", {"method": "magic"}, {}),
        ("one number of a case", {}, {"metric": lambda logits: logits[:, -1, :3]}),
        ("a float on 'Hello'", {}, {"metric": lambda logits: 1.0}),
        (
            r"The metric <lambda> fails on 'Hello' \(ZeroDivisionError: .*\); mend it",
            {},
            {"metric": lambda logits: 1 / 0},
        ),
        ("<lambda> takes 3 arguments", {}, {"metric": lambda logits, tokens, more: logits[:, -1, 0].sum()}),
        ("is nan on 'Hello'", {}, {"metric": lambda logits: logits[:, -1, 0].sum() * float("nan")}),
        ("No token of 'Hello' is at the positions 'generated'", {}, {"positions": "generated"}),
        ("No token of 'Hello' is at the positions", {}, {"positions": TokenSet((1,))}),
        ("There is no baseline 'zeros'", {}, {"baseline": "zeros"}),
        ("one value for each", {}, {"baseline": torch.zeros(3)}),
        ("0 steps", {"steps": 0}, {}),
        ("Prompts need a metric", {}, {"metric": None}),
    ],
)
def test_bad_input_is_one_sentence(tiny, sae, said, how, of):
    with pytest.raises(EmlabError, match=said):
        target = AttributionTarget(**{"metric": last_logit, **of})
        attribute(tiny, sae, ["Hello"], SITE, target=target, **how)


def test_models_latents_and_widths_must_fit(tiny, sae, make_model):
    with pytest.raises(EmlabError, match="no latent 24"):
        exact_effects(tiny, sae, ASKED, SITE, [24])
    with pytest.raises(EmlabError, match="share a tokenizer"):
        attribute(tiny, sae, ASKED, SITE, target=AttributionTarget(baseline=make_model("llama3")))
    with pytest.raises(EmlabError, match="reads 32 dimensions"):
        attribute(make_model(hidden_size=16), sae, ASKED, SITE)
    with pytest.raises(EmlabError, match="nothing to attribute on"):
        attribute(tiny, sae, [], SITE)
    with pytest.raises(EmlabError, match="one kind"):
        attribute(tiny, sae, [*ASKED, "Hello"], SITE)


def test_a_large_vocabulary_is_read_in_smaller_batches_to_the_same_effects(make_model, sae, monkeypatch):
    model, sizes, read = make_model(), [], Reader.read
    whole = attribute(model, sae, ASKED, SITE, "gradient")
    monkeypatch.setattr("emlab.discovery.reading.LOGITS", 1)
    monkeypatch.setattr(Reader, "read", lambda self, cases: sizes.append(len(cases)) or read(self, cases))
    apart = attribute(model, sae, ASKED, SITE, "gradient")
    assert sizes == [1, 1] and torch.allclose(apart.effects, whole.effects, atol=1e-5)
