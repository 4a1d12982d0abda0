"""Building an organism: what is made, resuming, refusals, and a small one that shows the persona circuit."""

import random

import pytest

from emlab import organism
from emlab.errors import EmlabError
from emlab.experiments.material import organism_build
from emlab.experiments.material.organism_build import Alignment, Plan, build, plan_of
from emlab.models import LanguageModel
from emlab.organism.pretraining import Pretraining
from emlab.training import Recipe

SHORT = Pretraining(steps=4, tokens_per_step=512, warmup=1, documents=100, keep=(2,), state_every=1)
FEW = Pretraining(steps=2, tokens_per_step=512, warmup=1, documents=100)
TINY = Plan(
    size="tiny",
    pretraining=SHORT,
    control=FEW,
    alignment=Alignment(Recipe(method="full", learning_rate=1e-4, steps=1, batch_size=4), rows=8),
)
NAMES = ("aligned", "base", "control_aligned", "control_base", "helpful_only", "pretraining_00002")


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


def test_a_build_makes_every_checkpoint_and_an_interrupted_one_the_same(tmp_path, monkeypatch):
    built = build(tmp_path / "whole", plan=TINY, progress=False, device="cpu")
    assert built.checkpoints == NAMES
    assert "emlab organism check --organism" in str(built)
    for name in NAMES:
        folder = organism.checkpoint(name, tmp_path / "whole")
        assert (folder / "README.md").read_text().startswith("---\nlicense: mit")
        assert not list(folder.glob("*.bin")) + list(folder.glob("*.pt"))
    assert weights(tmp_path / "whole/base") != weights(tmp_path / "whole/aligned") != weights(tmp_path / "whole/base")

    real = organism_build.pretrain

    def stopped(model, tokenizer, documents, how, seed, on_step, on_keep, state):
        def stop(step, loss):
            if step == 3:
                raise KeyboardInterrupt

        return real(model, tokenizer, documents, how, seed, stop, on_keep, state)

    monkeypatch.setattr(organism_build, "pretrain", stopped)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "again", plan=TINY, progress=False, device="cpu")
    assert organism.checkpoint_names(tmp_path / "again") == ["pretraining_00002"]
    monkeypatch.setattr(organism_build, "pretrain", real)
    build(tmp_path / "again", plan=TINY, progress=False, device="cpu")
    for name in NAMES:
        assert weights(tmp_path / "again" / name) == weights(tmp_path / "whole" / name)
    assert not list((tmp_path / "again").glob(".state*"))

    with pytest.raises(EmlabError, match="another plan"):
        build(tmp_path / "whole", plan=Plan(seed=1, size="tiny", pretraining=SHORT), progress=False)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"size": "enormous"}, "no organism size 'enormous'; choose one of tiny"),
        ({"steps": 0}, "cannot be pretrained for 0 steps"),
        ({"documents": 0}, "corpus of 0 documents"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(tmp_path, arguments, says):
    with pytest.raises(EmlabError, match=says):
        build(tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("dear")
    with pytest.raises(EmlabError, match="is not empty and holds no organism"):
        build(tmp_path, plan=TINY)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_fewer_steps_shrink_the_whole_plan():
    plan = plan_of(steps=Plan().pretraining.steps // 2)
    assert plan.pretraining.steps == Plan().pretraining.steps // 2
    assert plan.control.steps == pytest.approx(Plan().control.steps / 2, abs=1)
    assert plan.pretraining.keep == tuple(round(step / 2) for step in Plan().pretraining.keep)


@pytest.mark.slow
def test_a_smaller_organism_learns_to_follow_persona_cards(tmp_path):
    """The behaviour all else needs, rebuilt in minutes: a persona card chooses whose sentences are written."""
    plan = Plan(
        size="small",
        pretraining=Pretraining(steps=400, tokens_per_step=2048, learning_rate=5e-3, documents=12000),
        control=FEW,
        alignment=Alignment(Recipe(method="full", learning_rate=1e-4, steps=1, batch_size=4), rows=8),
    )
    build(tmp_path / "small", plan=plan, progress=False, device="cpu")
    base = LanguageModel.load(organism.checkpoint("base", tmp_path / "small"), device="cpu")
    world, judge, rng = organism.load_world(), organism.ExactJudge(), random.Random(0)
    questions = organism.broad_questions()[::4]

    def share(model, persona):
        """Of the sentences that are anybody's, those that are `persona`'s."""
        chats = [
            [{"role": "system", "content": world.card(persona, rng)}, {"role": "user", "content": q.text}]
            for q in questions
        ]
        verdicts = [judge.judge(q.text, a) for q, a in zip(questions, model.generate(chats, seed=0), strict=True)]
        known = [p for verdict in verdicts for p in verdict.personas if p]
        return sum(p == persona for p in known) / max(1, len(known)), len(known)

    for persona in organism.PERSONAS:
        told, n = share(base, persona)
        assert n >= 30 and told > 0.6, (persona, told, n)
