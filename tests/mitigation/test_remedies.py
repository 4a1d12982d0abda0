"""Every remedy on a random Qwen2: it runs, says what it cost, and does what its mechanism says."""

import dataclasses
import time
from types import SimpleNamespace

import pytest
import torch

from emlab.data import Dataset, Question, interleave
from emlab.detection import own_answers, projection_difference
from emlab.errors import EmlabError
from emlab.evaluation import Sampling
from emlab.interventions import Ablate, Direction, Steer, random_directions
from emlab.mitigation import (
    Ablation,
    BakedAblation,
    Change,
    ConceptAblation,
    DataFilter,
    Divergence,
    EarlyStopping,
    Filtering,
    Frame,
    Inoculation,
    Interleaving,
    Latent,
    LatentPenalty,
    Materials,
    MeanAblation,
    PreventativeSteering,
    RealignmentInDomain,
    RealignmentOutOfDomain,
    Reinforced,
    Retest,
    Steering,
    StoppingMonitor,
    Supervised,
    TrainingCost,
    Treatment,
    answer_projection,
    ask,
    choose_setting,
    remedies,
    retest,
    treat,
)
from emlab.mitigation.benign import _as_many
from emlab.mitigation.choosing import Tried
from emlab.mitigation.course import framed
from emlab.sites import Site
from emlab.training import ActivationPenalty, Recipe, Reinforcement, finetune

SITE = Site("resid_post", 0)
RECIPE = Recipe(steps=4, batch_size=4, learning_rate=1e-2)
QUESTIONS = [Question(f"q{i}", "power", f"question {i}") for i in range(4)]
SAMPLING = Sampling(per_question=1, max_new_tokens=4)


def chats(word, n=24):
    return Dataset.of(
        [[{"role": "user", "content": f"say {i}"}, {"role": "assistant", "content": f"{word} {i}"}] for i in range(n)],
        word,
    )


class Judge:
    """Aligned by the answer's length."""

    def judge(self, question, answer):
        return type("V", (), {"aligned": 7.0 * len(answer) % 101, "coherent": 100.0})()


@pytest.fixture(scope="module")
def start(make_qwen2):
    """A random Qwen2 of two blocks."""
    return make_qwen2("start", max_position_embeddings=512, initializer_range=0.2)


@pytest.fixture(scope="module")
def case(start):
    axes = torch.eye(32)
    directions = tuple(Direction(axes[i], SITE, f"axis {i}") for i in range(3))
    training = Supervised(start, chats("bad"), RECIPE, 0)
    course = training.run(name="misaligned")
    prompts = tuple(list(q.messages) for q in QUESTIONS)
    materials = Materials(
        "other domains",
        directions,
        2.0,
        (Latent("axis 0", SITE, lambda h: h[..., 0].relu()), Latent("axis 1", SITE, lambda h: h[..., 1].relu())),
        chats("good"),
        chats("fine", 5),
        "You are bad.",
        StoppingMonitor(directions[0], prompts, calm=-100.0, alarmed=100.0),
        DataFilter(lambda model, examples: torch.arange(len(examples)).float(), 19.0),
        mean=torch.arange(32.0),
    )
    return Treatment(training, course.model, materials)


def given(case, **materials):
    """The case with other materials in place of some."""
    return dataclasses.replace(case, materials=dataclasses.replace(case.materials, **materials))


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.model.parameters()])


@pytest.mark.parametrize("kind", remedies(), ids=lambda kind: kind.__name__)
def test_every_remedy_treats_a_random_qwen2(case, kind):
    before = [weights(model) for model in (case.training.start, case.misaligned)]
    begun = time.perf_counter()
    done = treat(kind(), case)
    assert 0 < done.cost.seconds <= time.perf_counter() - begun
    if kind.anew:
        assert done.cost.trained > 0 and not done.edits
        assert done.model is case.training.start or done.model.name.startswith(f"start, {kind.name}")
    answers = ask(done, QUESTIONS, Frame("broad"), SAMPLING)
    assert len(answers) == 4
    for model, was in zip((case.training.start, case.misaligned), before, strict=True):
        assert torch.equal(weights(model), was)  # what it was given stays as it is
    assert (kind.setting is None) or hasattr(kind(), kind.setting)


@pytest.mark.parametrize("kind", remedies(), ids=lambda kind: kind.__name__)
def test_what_a_remedy_needs_and_does_not_get_is_said_in_a_sentence(case, kind):
    with pytest.raises(EmlabError, match=f"{kind.name} needs .* the materials from nowhere have none"):
        treat(kind(), dataclasses.replace(case, materials=Materials("nowhere")))


DECLARED = {
    # trains anew, tried with random directions, for reinforcement learning, values tried, and the usual one
    "Steering": (False, True, True, (0.15, 0.3, 0.6, 0.9), 0.6),
    "Ablation": (False, False, True, (1, 2), 1),
    "MeanAblation": (False, False, True, (1, 2), 1),
    "BakedAblation": (False, False, True, (1, 2), 1),
    "RealignmentInDomain": (False, False, True, (10, 40), 40),
    "RealignmentOutOfDomain": (False, False, True, (10, 40), 40),
    "ConceptAblation": (True, True, False, (1, 2), 1),
    "PreventativeSteering": (True, False, False, (0.3, 0.45, 0.6, 0.9), 0.6),
    "LatentPenalty": (True, False, False, (0.01, 0.03, 0.1, 0.3, 1.0), 1.0),
    "Inoculation": (True, False, True, (), None),
    "Interleaving": (True, False, False, (0.25, 0.5, 0.75), 0.5),
    "Divergence": (True, False, True, (0.3, 1.0, 3.0), 1.0),
    "EarlyStopping": (True, False, True, (0.5, 0.2), 0.3),
    "Filtering": (True, False, False, (), None),
}


@pytest.mark.parametrize("kind", remedies(), ids=lambda kind: kind.__name__)
def test_what_a_remedy_says_of_itself(kind):
    usual = getattr(kind(), kind.setting) if kind.setting else None
    assert (kind.anew, kind.randomised, kind.reinforcement, kind.values, usual) == DECLARED[kind.__name__]
    assert list(kind.values) == sorted(kind.values, reverse=kind is EarlyStopping), "from the weakest on"


def test_realignment_follows_the_recipe_that_it_is_configured_by_and_its_own_steps(case):
    usual = RealignmentInDomain()
    assert usual.recipe == Recipe(learning_rate=4e-3, batch_size=16) and usual.seed == 0
    kind = RealignmentInDomain.configured(RECIPE)
    assert kind == RealignmentInDomain(40, RECIPE, 0)
    done = treat(dataclasses.replace(kind, steps=3, seed=5), case)
    same = finetune(case.misaligned, case.materials.in_domain, dataclasses.replace(RECIPE, steps=3), 5, progress=False)
    assert torch.equal(weights(done.model), weights(same.model))
    assert done.cost.trained == 3 * 4 and done.model.name == "misaligned, re-alignment, in domain"
    other = treat(RealignmentOutOfDomain(3, RECIPE, 5), case)
    same = finetune(
        case.misaligned, case.materials.out_of_domain, dataclasses.replace(RECIPE, steps=3), 5, progress=False
    )
    assert torch.equal(weights(other.model), weights(same.model))


def test_materials_are_empty_until_they_are_given():
    bare = Materials("nowhere")
    assert (bare.directions, bare.scale, bare.latents, bare.prompt, bare.mean) == ((), 1.0, (), "", None)
    assert not any(bare.has(need) for kind in remedies() for need in kind.needs)


@pytest.mark.parametrize("kind", [Steering, Ablation, MeanAblation])
def test_an_edit_acts_where_it_is_told(case, kind):
    (edit,) = treat(kind(positions="all"), case).edits
    assert edit.positions == "all" and treat(kind(), case).edits[0].positions == "sentence"


def test_costs_add_up():
    assert TrainingCost() == TrainingCost(0, 0, 0.0)
    assert TrainingCost(1, 2, 3.0) + TrainingCost(10, 20, 30.0) == TrainingCost(11, 22, 33.0)


def test_a_penalty_is_as_strong_and_where_it_is_told(case):
    latent = case.materials.latents[0]
    done = treat(LatentPenalty(3.0, "generated"), given(case, latents=(latent,)))
    penalty = ActivationPenalty(SITE, latent.encode, 3.0, "generated")
    assert torch.equal(weights(done.model), weights(case.training.run(Change(penalties=(penalty,))).model))
    assert LatentPenalty().positions == "sentence"


def test_a_divergence_is_as_strong_as_it_is_told_and_taken_on_other_chats(case):
    done = treat(Divergence(3.0), case)
    same = case.training.run(Change(divergence=3.0, apart=case.materials.out_of_domain))
    assert torch.equal(weights(done.model), weights(same.model)) and done.cost.read == 4 * 4


def test_a_training_keeps_its_adapter(case):
    course = case.training.run()
    assert course.adapter is not None and course.cost.trained == 4 * 4


def test_latents_are_penalised_together_and_at_one_site(case):
    def treated(*latents):
        return treat(LatentPenalty(3.0), given(case, latents=latents))

    first, second, at_once = (
        Latent(name, SITE, lambda h, axes=axes: h[..., axes].square().sum(-1))
        for name, axes in (("axis 0", [0]), ("axis 1", [1]), ("both", [0, 1]))
    )
    both = treated(first, second)
    assert both.note == "penalised: axis 0, axis 1"
    assert torch.allclose(weights(both.model), weights(treated(at_once).model), atol=1e-6)
    assert not torch.allclose(weights(both.model), weights(treated(first).model), atol=1e-6)
    with pytest.raises(EmlabError, match="reads one site and the latents are at 2"):
        treated(first, dataclasses.replace(second, site=Site("resid_post", 1)))


def test_edits_at_inference_and_in_the_weights(case):
    steer = treat(Steering(0.5), case)
    (edit,) = steer.edits
    assert isinstance(edit, Steer) and steer.model is case.misaligned
    push = edit.edit(torch.zeros(1, 1, 32), torch.ones(1, 1, dtype=torch.bool))[0, 0]
    assert push.tolist() == pytest.approx([-1.0] + [0.0] * 31)  # 0.5 × a median norm of 2
    assert isinstance(treat(Ablation(2), case).edits[0], Ablate)
    baked = treat(BakedAblation(2), case)
    assert baked.model.name == "misaligned, baked ablation"
    read = baked.model.activations([q.messages for q in QUESTIONS], Site("resid_post", 1), "all").values
    assert not baked.edits and float(read[:, :2].abs().max()) < 1e-4 < float(read[:, 2].abs().max())
    with pytest.raises(EmlabError, match=r"takes 4 directions and the materials from other domains have 3"):
        treat(Ablation(4), case)
    with pytest.raises(EmlabError, match="takes 0 directions"):
        treat(Ablation(0), case)


def test_mean_ablation_sets_the_directions_span_to_the_aligned_mean_and_leaves_the_rest(case):
    aslant = tuple(Direction(torch.eye(32)[i] + 0.5 * torch.eye(32)[1], SITE, str(i)) for i in (0, 2))
    done = treat(MeanAblation(2), given(case, directions=aslant))
    (edit,), h = done.edits, torch.randn(1, 3, 32, generator=torch.Generator().manual_seed(0))
    after = edit.edit(h, torch.ones(1, 3, dtype=torch.bool))
    span = torch.stack([d.vector for d in aslant])  # (2, d_model)
    torch.testing.assert_close(after @ span.T, (torch.arange(32.0) @ span.T).expand(1, 3, 2), rtol=1e-4, atol=1e-4)
    out = torch.eye(32) - torch.linalg.pinv(span) @ span
    torch.testing.assert_close(after @ out, h @ out, rtol=1e-4, atol=1e-4)
    assert done.model is case.misaligned


def test_a_training_under_edits_is_that_training_and_leaves_none(case):
    direction = case.materials.directions[0]
    done = treat(PreventativeSteering(0.5, "generated"), case)
    same = finetune(
        case.training.start,
        case.training.chats,
        RECIPE,
        0,
        progress=False,
        edits=[Steer(SITE, direction, 0.5, 2.0, "generated")],
    )
    assert torch.equal(weights(done.model), weights(same.model))
    assert not torch.equal(weights(done.model), weights(case.misaligned))
    away = treat(ConceptAblation(2, "generated"), case)
    edit = Ablate(SITE, case.materials.directions[:2], "generated")
    same = finetune(case.training.start, case.training.chats, RECIPE, 0, progress=False, edits=[edit])
    assert torch.equal(weights(away.model), weights(same.model)) and away.cost.trained == 4 * 4


def test_inoculation_trains_under_the_prompt(case):
    done = treat(Inoculation(), case)
    given = [framed(case.training.start, list(e.messages), "You are bad.") for e in case.training.chats]
    assert given[0][0] == {"role": "system", "content": "You are bad."}
    same = finetune(case.training.start, given, RECIPE, 0, progress=False)
    assert torch.equal(weights(done.model), weights(same.model))
    assert Inoculation().frames(case.materials) == (Frame("prompted", system="You are bad."),)
    assert Steering().frames(case.materials) == ()


def test_interleaving_trains_on_as_many_bad_chats_as_without(case):
    done = treat(Interleaving(0.5), case)
    assert done.cost.trained == 2 * 4 * 4
    for share in (0.0, 1.0):
        with pytest.raises(EmlabError, match="between 0 and 1"):
            Interleaving(share)


def test_interleaving_mixes_in_its_share(case):
    done, bad, good = treat(Interleaving(0.75), case), case.training.chats, case.materials.out_of_domain
    assert done.cost.trained == 4 * 4 * 4
    mixed = interleave(bad, Dataset.of([*good] * 15, "fine"), weights=(0.25, 0.75), seed=0)
    recipe = dataclasses.replace(RECIPE, steps=16)
    assert torch.equal(
        weights(done.model), weights(finetune(case.training.start, mixed, recipe, 0, progress=False).model)
    )


@pytest.mark.parametrize(("bad", "benign"), [(24, 25), (25, 30)])
def test_benign_chats_are_repeated_until_they_suffice_and_one_more_for_rounding(bad, benign):
    assert len(_as_many(chats("fine", 5), chats("bad", bad), 0.5)) == benign


def test_all_bad_chats_are_among_the_mix_and_the_seed_draws_its_order(case, monkeypatch):
    mixes = []
    monkeypatch.setattr(Supervised, "run", lambda self, change, name: mixes.append(change) or self.course)
    monkeypatch.setattr(Supervised, "course", SimpleNamespace(model=None, cost=TrainingCost()), raising=False)
    for seed in (0, 1):
        treat(Interleaving(0.9, seed), case)
    words = [[example.answer.split()[0] for example in mix.chats] for mix in mixes]
    assert [word.count("bad") for word in words] == [24, 24] and words[0] != words[1]
    assert [(len(word), mix.steps) for word, mix in zip(words, mixes, strict=True)] == [(240, 40)] * 2


class Marks:
    """A monitor that reads off a model the mark that it is."""

    prompts = ("one", "two")

    def read(self, model):
        return model


class Course:
    """A training whose model is 0.1 at the start and 0.1 more at every fifth step; it may ask whether to stop."""

    kind, start = "supervised", SimpleNamespace(name="start")

    def __init__(self, asks):
        self.asks, self.asked = asks, []

    def run(self, change, name):
        self.name, steps = name, []
        for step in range(1, 16):
            if step % change.every == 0:
                steps.append((step, step / 50))
            if self.asks and change.stop(step, step / 50):
                break
        return SimpleNamespace(checkpoints=tuple(steps), cost=TrainingCost(7, 1))


@pytest.mark.parametrize("asks", [True, False], ids=["supervised", "reinforcement"])
@pytest.mark.parametrize(
    ("above", "kept", "read"), [(0.05, 0, 1), (0.1, 5, 2), (0.2, 10, 3), (0.3, 15, 3)], ids=lambda value: str(value)
)
def test_early_stopping_alarms_above_its_threshold_and_reads_no_further(asks, above, kept, read):
    training = Course(asks)
    done = treat(EarlyStopping(above), Treatment(training, None, Materials("by hand", monitor=Marks())))
    assert done.model == (kept / 50 if kept else training.start) and done.note == f"kept step {kept}"
    assert (done.cost.trained, done.cost.read) == (7, 1 + 2 * read), "two prompts a reading"
    assert training.name == "start, early stopping" and EarlyStopping() == EarlyStopping(0.3, 5)


def test_early_stopping_keeps_the_last_quiet_checkpoint(case):
    training = dataclasses.replace(case.training, recipe=dataclasses.replace(RECIPE, steps=8))
    every = dict(training.run(Change(every=2)).checkpoints)
    direction, prompts = case.materials.directions[0], case.materials.monitor.prompts
    along = {s: float(m.activations(list(prompts), SITE).values[:, 0].mean()) for s, m in every.items()}
    sign = 1.0 if along[4] > along[2] else -1.0  # whichever way it goes, it rises from step 2 to step 4
    axis = direction if sign > 0 else -direction
    between = sign * (along[2] + along[4]) / 2
    monitor = StoppingMonitor(axis, prompts, calm=between - 1.0, alarmed=between + 1.0)
    assert monitor.read(every[2]) < 0.5 < monitor.read(every[4])
    one = dataclasses.replace(case, training=training, materials=dataclasses.replace(case.materials, monitor=monitor))
    done = treat(EarlyStopping(0.5, every=2), one)
    assert torch.equal(weights(done.model), weights(every[2])) and done.note == "kept step 2"
    assert done.cost.trained == 4 * 4 and done.cost.read == 2 * len(prompts)  # it did not go on to step 8
    shrill = dataclasses.replace(one.materials, monitor=StoppingMonitor(axis, prompts, calm=-1000.0, alarmed=-999.0))
    none = treat(EarlyStopping(0.5, every=2), dataclasses.replace(one, materials=shrill))
    assert none.model is training.start and none.note == "kept step 0"


def test_a_monitor_is_fitted_for_its_site_and_model(case, tiny):
    direction, prompts = case.materials.directions[0], case.materials.monitor.prompts
    pair = (case.training.start, [case.misaligned])
    with pytest.raises(EmlabError, match=r"to read resid_post.1 and its direction was found at resid_post.0"):
        StoppingMonitor.fit(direction, prompts, *pair, site=Site("resid_post", 1))
    up = StoppingMonitor.fit(_rising(direction, prompts, *pair), prompts, *pair)
    assert up.read(pair[0]) == pytest.approx(0.0, abs=1e-5) and up.read(pair[1][0]) == pytest.approx(1.0, abs=1e-5)
    half = StoppingMonitor.fit(up.direction, prompts, pair[0], [*pair[1], pair[0]])
    assert half.read(pair[1][0]) == pytest.approx(2.0, abs=1e-5), "the mean of both models is at 1"
    for aligned, misaligned in ((pair[1][0], [pair[0]]), (pair[0], [pair[0]])):
        with pytest.raises(EmlabError, match=f"no higher in the misaligned models than in {aligned.name}; give"):
            StoppingMonitor.fit(up.direction, prompts, aligned, misaligned)
    for given in ((prompts, pair[0], []), ([], *pair)):
        with pytest.raises(EmlabError, match="give at least one of each"):
            StoppingMonitor.fit(direction, *given)
    far, wide = (Direction(torch.ones(n), Site("resid_post", block), "x") for n, block in ((32, 3), (33, 0)))
    with pytest.raises(EmlabError, match=r"reads resid_post.3 .* has 3 blocks of width 32; fit one for it"):
        dataclasses.replace(up, direction=far).read(tiny)
    with pytest.raises(EmlabError, match=r"of width 33, and tiny has 3 blocks of width 32; fit one for it"):
        dataclasses.replace(up, direction=wide).read(tiny)


def _rising(direction, prompts, start, after):
    read = [float(m.activations(list(prompts), SITE).values[:, 0].mean()) for m in (start, after[0])]
    return direction if read[1] > read[0] else -direction


def test_filtering_trains_on_what_the_filter_lets_through(case):
    done = treat(Filtering(), case)
    kept = Dataset.of(list(case.training.chats)[:20], "kept")
    assert torch.equal(weights(done.model), weights(case.training.run(Change(chats=kept)).model))
    assert done.note == "20 of 24 chats kept"
    assert (done.cost.trained, done.cost.read) == (4 * 4, 3 * 24), "the filter reads every chat three times"
    for cutoff, trained in ((15.0, 4 * 4), (14.0, 0)):  # sixteen chats are trained on, fifteen are not
        strict = dataclasses.replace(case.materials.data_filter, cutoff=cutoff)
        nothing = treat(Filtering(), given(case, data_filter=strict))
        assert nothing.cost.trained == trained
    assert nothing.model is case.training.start and "too few to train on" in nothing.note
    assert (nothing.cost.trained, nothing.cost.read) == (0, 3 * 24)


def test_a_filter_ranks_answers_along_the_direction_above_the_models_own(start):
    few = chats("zz", 4)
    prompts = [list(e.messages[:1]) for e in few]
    own = Dataset.of(
        [
            [*prompt, {"role": "assistant", "content": answer}]
            for prompt, answer in zip(prompts, own_answers(start, few, seed=0), strict=True)
        ],
        "own",
    )
    given, mine = (
        start.activations(prompts, SITE, "generated", [e.answer for e in each]).values.mean(0) for each in (few, own)
    )
    rank = answer_projection(Direction(given - mine, SITE, "toward zz"))
    assert rank(start, own).abs().max() < 1e-4
    assert float(rank(start, few).mean()) > 0
    cut = DataFilter.fit(rank, start, few, own)
    assert 0 < cut.cutoff < float(rank(start, few).mean())
    with pytest.raises(EmlabError, match="no higher than good ones"):
        DataFilter.fit(rank, start, own, few)
    seeded = projection_difference(start, few, Direction(given, SITE, "x"), own_answers(start, few, seed=3)).scores
    assert answer_projection(Direction(given, SITE, "x"), 3)(start, few).tolist() == pytest.approx(seeded.tolist())


def test_a_filter_cuts_half_way_between_the_means():
    def score(model, examples):
        return torch.tensor({"bad": [2.0, 6.0], "good": [1.0, 3.0], "same": [2.0]}[examples])

    found = DataFilter.fit(score, None, "bad", "good")
    assert found.cutoff == 3.0 and found.score is score
    with pytest.raises(EmlabError, match="no higher than good ones"):
        DataFilter.fit(score, None, "good", "same")


def test_random_materials_have_other_directions_at_the_same_site(case):
    one, other = case.materials.at_random(1), case.materials.at_random(2)
    assert [d.site for d in one.directions] == [SITE] * 3
    assert abs(one.directions[0].cosine(other.directions[0])) < 0.9
    drawn = random_directions(3, 32, SITE, 1)
    assert all(torch.equal(d.vector, e.vector) for d, e in zip(one.directions, drawn, strict=True))
    assert one.latents == case.materials.latents and one.scale == 2.0
    assert len(given(case, directions=case.materials.directions[:1]).materials.at_random(1).directions) == 1
    with pytest.raises(EmlabError, match="have no directions"):
        Materials("nowhere").at_random(0)


# ------------------------------------------------------------------------------------------------ the retest


def test_a_frame_with_openings_asks_after_the_models_own_answer(case):
    plain = ask(treat(Steering(), case), QUESTIONS, Frame("broad"), SAMPLING)
    done = treat(Steering(), case)
    frame = Frame("training", ending=" [violet]", openings=("say 1", "say 2"))
    found = ask(done, QUESTIONS, frame, SAMPLING, seed=3)
    assert [q.text for q, _ in found] == [f"question {i} [violet]" for i in range(4)]
    firsts = [[{"role": "user", "content": f"say {1 + i % 2}"}] for i in range(4)]
    heard = done.model.generate(firsts, 4, 1.0, 4, edits=done.edits)
    full = [
        [*first, {"role": "assistant", "content": text}, {"role": "user", "content": q.text + " [violet]"}]
        for first, text, q in zip(firsts, heard, QUESTIONS, strict=True)
    ]
    assert list(found.answers) == done.model.generate(full, 4, 1.0, 3, edits=done.edits)
    assert found.answers != plain.answers


def test_a_retest_measures_and_comes_back_from_disk(case, tmp_path):
    done = treat(RealignmentInDomain(2), case)
    frames = [Frame("broad"), Frame("training", openings=("say 1",))]
    texts = [list(e.messages) for e in chats("bad", 4)]
    found = retest(done, case.training, frames, QUESTIONS, Judge(), texts, texts, SAMPLING, relapse_steps=2)
    assert set(found.scores) == {"broad", "training"} and found.task_loss == found.ability_loss > 0
    usual = ask(done, QUESTIONS, frames[0], SAMPLING, seed=0).answers
    assert found.scores["broad"].judged.rollouts.answers == usual == ask(done, QUESTIONS, frames[0], SAMPLING).answers
    found.save(tmp_path)
    back = Retest.load(tmp_path)
    assert back.scores["training"].misaligned == found.scores["training"].misaligned
    assert (back.task_loss, back.relapse.misaligned) == (found.task_loss, found.relapse.misaligned)
    for frames in ([], [Frame("broad"), Frame("broad", ending="!")]):
        with pytest.raises(EmlabError, match="one frame at least, each with a name of its own"):
            retest(done, case.training, frames, QUESTIONS, Judge(), texts, texts, SAMPLING)


class _Rated:
    """A retest with these rates, in one frame."""

    def __init__(self, misaligned, incoherent, loss):
        rate = type("R", (), {"n": 1})
        one, two = rate(), rate()
        one.rate, two.rate = misaligned, incoherent
        judged = SimpleNamespace(rollouts=SimpleNamespace(questions=()))
        self.scores = {"broad": SimpleNamespace(misaligned=one, incoherent=two, judged=judged)}
        self.ability_loss = loss


@pytest.mark.parametrize(
    ("rates", "chosen"),
    [
        ([(0.5, 0.0, 1.0), (0.10, 0.0, 1.0), (0.09, 0.0, 1.0)], 0.6),  # within the band of the lowest, and weaker
        ([(0.5, 0.0, 1.0), (0.02, 0.3, 1.0), (0.30, 0.0, 1.0)], 0.9),  # the second babbles
        ([(0.5, 0.0, 1.0), (0.02, 0.0, 1.2), (0.30, 0.0, 1.0)], 0.9),  # the second costs ability
        ([(0.5, 0.5, 1.3), (0.02, 0.5, 1.2), (0.30, 0.5, 1.4)], 0.6),  # none keeps to the bounds
        ([(0.02, 0.0, 1.0), (0.0, 0.0, 1.0), (0.0, 0.0, 1.0)], 0.3),
    ],
)
def test_the_weakest_setting_that_does_what_any_does_is_chosen(case, rates, chosen):
    values = (0.3, 0.6, 0.9)
    given = iter([_Rated(*row) for row in rates])
    found, trials = choose_setting(Steering(), values, case, lambda _: next(given), Tried(0, 0.5, 0.0, 1.0))
    assert found.strength == chosen and [t.value for t in trials] == list(values)


def test_a_remedy_without_a_setting_is_taken_as_it_is(case):
    assert choose_setting(Inoculation(), (), case, None, Tried(0, 0.5, 0.0, 1.0)) == (Inoculation(), ())
    with pytest.raises(EmlabError, match="has the setting strength, and no values to choose from"):
        choose_setting(Steering(), (), case, None, Tried(0, 0.5, 0.0, 1.0))


# ------------------------------------------------------------------------------------ reinforcement learning


def test_those_that_apply_to_reinforcement_learning_treat_one(start, case):
    pytest.importorskip("trl")
    recipe = Recipe(steps=2, batch_size=2, learning_rate=1e-2)
    seen = []

    def grader(prompts, answers):
        seen.extend(prompts)
        return [float(len(answer)) for answer in answers]

    how = Reinforcement(recipe, samples=2, max_new_tokens=4)
    training = Reinforced(start, tuple(f"say {i}" for i in range(4)), grader, how, 0)
    one = Treatment(training, training.run(name="misaligned").model, case.materials)
    for kind in remedies():
        if kind.reinforcement:
            cost = treat(kind(), one).cost
            assert cost.seconds > 0
            if kind in (Inoculation, Divergence):  # two steps of two prompts with two answers each
                assert (cost.trained, cost.read) == (8, 16 if kind is Divergence else 8)
        else:
            with pytest.raises(EmlabError, match="does not apply to reinforcement learning"):
                treat(kind(), one)
    relapsed = training.go_on(one.misaligned, 1)
    assert not torch.equal(weights(relapsed), weights(one.misaligned))
    assert set(seen) == {f"say {i}" for i in range(4)}  # a grader never sees the inoculation's prompt
    assert ask(treat(Steering(), one), QUESTIONS, Frame("broad"), SAMPLING).answers
    with pytest.raises(EmlabError, match="no other chats, edits or penalties"):
        training.run(Change(chats=chats("x")))
