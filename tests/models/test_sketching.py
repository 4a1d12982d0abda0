"""A sketch against answers in which the same tokens, and no others, are read under the edit."""

import dataclasses

import pytest
import torch

from emlab.errors import EmlabError
from emlab.interventions import Steer, random_directions
from emlab.models import edited, sketching
from emlab.models.backend_support import tiny_model
from emlab.models.generation import generate_ids
from emlab.models.sketching import STAYS, STRAYS, TURNS, sketch
from emlab.sites import Site

PROMPTS = ["hi", "a longer question", "who?"]


@pytest.fixture(scope="module", params=["llama", "qwen2", "gemma", "gpt2"])
def lm(request, tiny):
    """A random model of three blocks; every third token ends a line, so that lines are short."""
    model = dataclasses.replace(tiny, model=tiny_model(request.param, vocab_size=len(tiny.tokenizer)))
    model.sentence_ends = list(range(20, len(tiny.tokenizer), 3))
    return model


def none(lm):
    return torch.zeros(len(PROMPTS), lm.model.config.vocab_size, dtype=torch.bool)


def only(lm, tokens):
    """The first token of each prompt alone."""
    return none(lm).scatter(1, tokens[:, None], True)


@pytest.mark.parametrize("site", ["resid_post.0", "resid_post.2", "resid_pre.0"])
def test_the_first_token_is_that_of_the_edited_model(lm, site):
    site = Site.parse(site)
    directions = random_directions(6, 32, site, seed=0)
    edit = Steer(site, torch.stack([d.vector for d in directions]).repeat_interleave(3, 0), 9.0)
    alone = [lm.logits(PROMPTS, edits=[Steer(site, d, 9.0)]) for d in directions]
    first = torch.stack([torch.stack([row[-1].argmax() for row in rows]) for rows in alone])  # (directions, prompts)
    plain = torch.stack([row[-1] for row in lm.logits(PROMPTS)])
    less = plain.amax(-1) - plain[torch.arange(3), first]
    for i in range(6):
        # What each begins with is looked for, and found in that direction's row, unless the likeliest as it was.
        kinds = sketch(lm, PROMPTS, [edit], only(lm, first[i]), none(lm), 6, lines=1, plausible=0.0, batch_size=4)
        stops = torch.isin(first[i], torch.tensor(lm.stop_ids))
        assert (kinds[i] == torch.where((less[i] <= 0) | stops, STAYS, TURNS)).all()
    bound = float(less.amax()) / 2
    kinds = sketch(lm, PROMPTS, [edit], none(lm), none(lm), 6, lines=1, plausible=bound)
    odd = (less > bound) & ~torch.isin(first, torch.tensor(lm.stop_ids))
    assert (kinds == torch.where(odd, STRAYS, STAYS)).all() and 0 < int(odd.sum()) < odd.numel()
    assert (sketch(lm, PROMPTS, [edit], none(lm), ~none(lm), 6, lines=1) == STAYS).all()


def test_without_a_push_every_line_stays(lm):
    edit = Steer(Site("resid_post", 1), torch.eye(32)[:6], 0.0)
    assert (sketch(lm, PROMPTS, [edit], ~none(lm), none(lm), 2, plausible=1e-3) == STAYS).all()


def test_a_later_line_is_read_after_the_first_with_both_pushes(lm):
    """The second line's beginning, computed in one plain pass over a text that is edited at the header and its end."""
    site = Site("resid_post", 2)  # after the last block: no other token of the text can feel the push
    liner = dataclasses.replace(lm, _stops=sorted({*lm.stop_ids, *lm.sentence_ends.tolist()}))
    looked_for = 0
    for direction in random_directions(4, 32, site, seed=1):
        edit, wanted = Steer(site, direction, 6.0), none(lm)
        first = [int(row[-1].argmax()) for row in lm.logits(PROMPTS, edits=[edit])]
        for row, (prompt, token) in enumerate(zip(PROMPTS, first, strict=True)):
            start = lm.prompt_ids(prompt)
            line = (
                [token] if token in lm.sentence_ends else [token, *generate_ids(liner, [[*start, token]], 23, 0, 0)[0]]
            )
            if token in lm.stop_ids or line[-1] not in lm.sentence_ends:
                continue
            tokens = lm.batch([[*start, *line]], [len(start)])
            with torch.no_grad(), edited(lm.model, [edit], lambda: lm.sentence_ends) as editor:
                editor.see(tokens)
                second = int(lm.model(input_ids=tokens.ids, use_cache=False).logits[0, -1].argmax())
            wanted[row, second] = second not in (token, *lm.stop_ids)
        # With every other token usual, only the second line can turn.
        kinds = sketch(lm, PROMPTS, [edit], wanted, ~wanted, 1, lines=2, plausible=-1.0)[0]
        assert (kinds == torch.where(wanted.any(1), TURNS, STAYS)).all()
        looked_for += int(wanted.sum())
    assert looked_for


@pytest.mark.parametrize("site", ["resid_post.0", "resid_pre.0"])
def test_what_was_read_at_earlier_lines_is_as_if_read_anew(lm, site, monkeypatch):
    site = Site.parse(site)
    directions = torch.stack([d.vector for d in random_directions(20, 32, site, seed=3)])
    strengths = torch.linspace(0.2, 6, 20).repeat_interleave(3)  # so that answers stray at every line
    given = (lm, PROMPTS, [Steer(site, directions.repeat_interleave(3, 0), strengths)], none(lm), none(lm), 20)
    carried = sketch(*given, plausible=0.5)
    at_a_time = sketch(*given, plausible=0.5, batch_size=2)  # and one prompt after the other
    monkeypatch.setattr(sketching._Read, "then", lambda self, new: self)  # nothing is kept
    assert torch.equal(carried, sketch(*given, plausible=0.5)) and torch.equal(carried, at_a_time)
    # What strays at the second or third line shows that there the edited tokens matter.
    assert (carried != sketch(*given, lines=1, plausible=0.5)).any()


def test_a_part_of_the_answers_and_lines_that_are_known(lm):
    directions = random_directions(6, 32, Site("resid_post", 1), seed=0)
    edit = Steer(directions[0].site, torch.stack([d.vector for d in directions]).repeat_interleave(3, 0), 9.0)
    known = {}
    whole = sketch(lm, PROMPTS, [edit], none(lm), none(lm), 6, plausible=0.5, known=known)
    assert known and all(line[: len(begun)] == begun for begun, line in known.items())
    assert len(whole.unique()) > 1
    among = torch.arange(18).reshape(6, 3) % 2 == 0
    part = sketch(lm, PROMPTS, [edit], none(lm), none(lm), 6, plausible=0.5, among=among, known=known)
    assert torch.equal(part, torch.where(among, whole, STAYS))
    assert (sketch(lm, PROMPTS, [edit], none(lm), none(lm), 6, among=~(among | ~among)) == STAYS).all()


def test_bad_input(tiny):
    short = dataclasses.replace(tiny, model=tiny_model("gemma2", vocab_size=len(tiny.tokenizer)))  # its window is 4
    with pytest.raises(EmlabError, match="window"):
        sketch(short, PROMPTS, [Steer(Site("resid_post", 1), torch.ones(32))], none(tiny), none(tiny))
    with pytest.raises(EmlabError, match="Only edits of headers"):
        sketch(tiny, PROMPTS, [Steer(Site("resid_post", 1), torch.ones(32), positions="all")], none(tiny), none(tiny))
    with pytest.raises(EmlabError, match="5 rows for 6 prompts"):
        sketch(tiny, PROMPTS, [Steer(Site("resid_post", 1), torch.ones(5, 32))], none(tiny), none(tiny), 2)
