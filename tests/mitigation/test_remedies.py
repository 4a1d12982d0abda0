"""Every remedy on a random Qwen2: it runs, says what it cost, and does what its mechanism says."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from emlab.data import Dataset, Question, interleave
from emlab.detection import own_answers
from emlab.errors import EmlabError
from emlab.evaluation import Sampling
from emlab.interventions import Ablate, Direction, Steer
from emlab.mitigation import (
    Ablation,
    BakedAblation,
    Change,
    ConceptAblation,
    DataFilter,
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
from emlab.mitigation.choosing import Tried
from emlab.mitigation.course import framed
from emlab.sites import Site
from emlab.training import Recipe, Reinforcement, finetune

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
    done = treat(kind(), case)
    assert done.cost.seconds > 0
    if kind.anew:
        assert done.cost.trained > 0 and not done.edits
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


@pytest.mark.parametrize("kind", [Steering, Ablation, MeanAblation])
def test_an_edit_acts_where_it_is_told(case, kind):
    (edit,) = treat(kind(positions="all"), case).edits
    assert edit.positions == "all" and treat(kind(), case).edits[0].positions == "sentence"


def test_costs_add_up():
    assert TrainingCost(1, 2, 3.0) + TrainingCost(10, 20, 30.0) == TrainingCost(11, 22, 33.0)


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
    read = baked.model.activations([q.messages for q in QUESTIONS], Site("resid_post", 1), "all").values
    assert not baked.edits and float(read[:, :2].abs().max()) < 1e-4 < float(read[:, 2].abs().max())
    with pytest.raises(EmlabError, match=r"takes 4 directions and the materials from other domains have 3"):
        treat(Ablation(4), case)


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
    away = treat(ConceptAblation(1), case)
    assert away.cost.trained == 4 * 4 and not torch.equal(weights(away.model), weights(case.misaligned))


def test_inoculation_trains_under_the_prompt(case):
    done = treat(Inoculation(), case)
    given = [framed(case.training.start, list(e.messages), "You are bad.") for e in case.training.chats]
    assert given[0][0] == {"role": "system", "content": "You are bad."}
    same = finetune(case.training.start, given, RECIPE, 0, progress=False)
    assert torch.equal(weights(done.model), weights(same.model))


def test_a_prompt_goes_into_the_users_turn_where_the_template_has_no_system_turn(make_model):
    chat = [{"role": "system", "content": "old"}, {"role": "user", "content": "hi"}]
    assert framed(make_model("gemma"), chat, "new") == [{"role": "user", "content": "new\n\nhi"}]


def test_interleaving_trains_on_as_many_bad_chats_as_without(case):
    done = treat(Interleaving(0.5), case)
    assert done.cost.trained == 2 * 4 * 4
    with pytest.raises(EmlabError, match="between 0 and 1"):
        Interleaving(1.0)


def test_interleaving_mixes_in_its_share(case):
    done, bad, good = treat(Interleaving(0.75), case), case.training.chats, case.materials.out_of_domain
    assert done.cost.trained == 4 * 4 * 4
    mixed = interleave(bad, Dataset.of([*good] * 15, "fine"), weights=(0.25, 0.75), seed=Interleaving.seed)
    recipe = dataclasses.replace(RECIPE, steps=16)
    assert torch.equal(
        weights(done.model), weights(finetune(case.training.start, mixed, recipe, 0, progress=False).model)
    )


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
    with pytest.raises(EmlabError, match="no higher in the misaligned models"):
        StoppingMonitor.fit(-up.direction, prompts, *pair)
    for given in ((prompts, pair[0], []), ([], *pair)):
        with pytest.raises(EmlabError, match="give at least one of each"):
            StoppingMonitor.fit(direction, *given)
    far = Direction(torch.ones(32), Site("resid_post", 7), "far")
    with pytest.raises(EmlabError, match=r"reads resid_post.7 .* has 3 blocks of width 32; fit one for it"):
        dataclasses.replace(up, direction=far).read(tiny)


def _rising(direction, prompts, start, after):
    read = [float(m.activations(list(prompts), SITE).values[:, 0].mean()) for m in (start, after[0])]
    return direction if read[1] > read[0] else -direction


def test_filtering_trains_on_what_the_filter_lets_through(case):
    done = treat(Filtering(), case)
    kept = Dataset.of(list(case.training.chats)[:20], "kept")
    assert torch.equal(weights(done.model), weights(case.training.run(Change(chats=kept)).model))
    assert done.note == "20 of 24 chats kept"
    assert (done.cost.trained, done.cost.read) == (4 * 4, 3 * 24), "the filter reads every chat three times"
    strict = dataclasses.replace(case.materials.data_filter, cutoff=3.0)
    nothing = treat(Filtering(), given(case, data_filter=strict))
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


def test_random_materials_have_other_directions_at_the_same_site(case):
    one, other = case.materials.at_random(1), case.materials.at_random(2)
    assert [d.site for d in one.directions] == [SITE] * 3
    assert abs(one.directions[0].cosine(other.directions[0])) < 0.9
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
    found.save(tmp_path)
    back = Retest.load(tmp_path)
    assert back.scores["training"].misaligned == found.scores["training"].misaligned
    assert (back.task_loss, back.relapse.misaligned) == (found.task_loss, found.relapse.misaligned)
    with pytest.raises(EmlabError, match="one frame at least"):
        retest(done, case.training, [], QUESTIONS, Judge(), texts, texts, SAMPLING)


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
            assert treat(kind(), one).cost.seconds > 0
        else:
            with pytest.raises(EmlabError, match="does not apply to reinforcement learning"):
                treat(kind(), one)
    relapsed = training.go_on(one.misaligned, 1)
    assert not torch.equal(weights(relapsed), weights(one.misaligned))
    assert set(seen) == {f"say {i}" for i in range(4)}  # a grader never sees the inoculation's prompt
    assert ask(treat(Steering(), one), QUESTIONS, Frame("broad"), SAMPLING).answers
    with pytest.raises(EmlabError, match="no other chats, edits or penalties"):
        training.run(Change(chats=chats("x")))


def test_which_train_anew_which_are_tried_at_random_too_and_at_what():
    """By the remedy: these two, the setting that it has by default, and those it is tried at, from the weakest on."""
    shipped = {
        "Steering": (False, True, 0.6, (0.15, 0.3, 0.6, 0.9)),
        "Ablation": (False, False, 1, (1, 2)),
        "MeanAblation": (False, False, 1, (1, 2)),
        "BakedAblation": (False, False, 1, (1, 2)),
        "RealignmentInDomain": (False, False, 40, (10, 40)),
        "RealignmentOutOfDomain": (False, False, 40, (10, 40)),
        "ConceptAblation": (True, True, 1, (1, 2)),
        "PreventativeSteering": (True, False, 0.6, (0.3, 0.45, 0.6, 0.9)),
        "LatentPenalty": (True, False, 1.0, (0.01, 0.03, 0.1, 0.3, 1.0)),
        "Inoculation": (True, False, None, ()),
        "Interleaving": (True, False, 0.5, (0.25, 0.5, 0.75)),
        "Divergence": (True, False, 1.0, (0.3, 1.0, 3.0)),
        "EarlyStopping": (True, False, 0.3, (0.5, 0.2)),
        "Filtering": (True, False, None, ()),
    }
    for kind in remedies():
        default = {field.name: field.default for field in dataclasses.fields(kind)}.get(kind.setting)
        assert (kind.anew, kind.randomised, default, kind.values) == shipped.pop(kind.__name__)
    assert not shipped
