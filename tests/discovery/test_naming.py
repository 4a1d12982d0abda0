"""Names: from the right excerpts, out of whatever the language model replies, over a real endpoint."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emlab.discovery import Context, LatentContexts, LatentName, Namer, name_latents
from emlab.discovery.naming import LONGEST, for_naming, naming_contexts, phrase
from emlab.discovery.naming_prompts import detection, fuzzing, marked, naming, strongest
from emlab.errors import EmlabError
from emlab.models import Endpoint


def context(text, peak=1.0, document=0, at=0):
    tokens = tuple(text)
    return Context(tokens, tuple(peak if i == at else 0.0 for i in range(len(tokens))), "", document)


def latent_of(number, sample, top=None):
    return LatentContexts(number, (), tuple(sample if top is None else top), tuple(sample), ())


SAMPLE = [context(f"text{i}", 1.0 + i, i) for i in range(40)]
FOUND = latent_of(7, SAMPLE, SAMPLE[::-1][:10])


# --- excerpts and prompts ---


def test_marks_stand_around_runs_of_tokens_and_are_taken_out_of_the_text():
    one = Context(("a", "b", "«c»", "d"), (0.0, 0.0, 0.0, 0.0))
    assert marked(one, []) == 'ab"c"d'
    assert marked(one, [0, 1]) == '«ab»"c"d'
    assert marked(one, [1, 3]) == 'a«b»"c"«d»'


@given(st.lists(st.text(max_size=3), min_size=1, max_size=8), st.data())
def test_marks_are_balanced_and_hold_the_marked_tokens(tokens, data):
    places = data.draw(st.sets(st.integers(0, len(tokens) - 1)))
    said = marked(Context(tuple(tokens), (0.0,) * len(tokens)), places)
    assert said.count("«") == said.count("»") <= len(places)
    inside = "".join(part.split("»")[0] for part in said.split("«")[1:])
    bare = [token.replace("«", '"').replace("»", '"') for token in tokens]
    assert inside == "".join(bare[i] for i in sorted(places)) and said.replace("«", "").replace("»", "") == "".join(
        bare
    )


def test_only_strong_tokens_are_marked_for_naming():
    assert strongest(Context(("a", "b", "c", "d"), (10.0, 3.0, 2.9, 0.0))) == [0, 1]


def test_the_prompt_shows_strengths_of_ten_and_the_texts():
    said = naming([context("hello", 8.0), context("there", 2.0, at=1)])
    assert "Excerpt 1 (strength 10 of 10):\n«h»ello" in said and "Excerpt 2 (strength 2 of 10):\nt«h»ere" in said
    braces = context("{x} {name}")
    assert "{x} {name}" in detection("{text}", braces) and "{text}" in detection("{text}", braces)
    assert "«{»x}" in fuzzing("n", braces, [0])


def test_half_of_the_excerpts_are_the_strongest_and_half_go_over_all():
    shown = naming_contexts(FOUND, 8, seed=0)
    assert len(shown) == 8 and len({c.text for c in shown}) == 8
    assert all(for_naming(c, 0) for c in shown)
    top = [c for c in FOUND.top if for_naming(c, 0)][:4]
    assert list(shown[: len(top)]) == top and shown[-1].peak < 12
    assert [c.peak for c in shown] == sorted((c.peak for c in shown), reverse=True)
    few = latent_of(1, [], SAMPLE[::-1])
    assert len(naming_contexts(few, 8, 0)) == 8, "where there is no sample, the strongest are taken"


def test_the_halves_are_by_document_and_depend_on_the_seed():
    halves = [[for_naming(context("x", document=d), seed) for d in range(400)] for seed in (0, 1)]
    assert halves[0] != halves[1] and all(160 < sum(half) < 240 for half in halves)


# --- replies ---


@pytest.mark.parametrize(
    ("reply", "name"),
    [
        ("malicious advice", "malicious advice"),
        ('"Cruel, spiteful advice."', "Cruel, spiteful advice"),
        ("\n\n- **cruelty**\nbecause …", "cruelty"),
        ("<think>They are\nall cruel.</think>\ncruelty", "cruelty"),
        ("<think>They are all", ""),
        ("", ""),
        ("...", ""),
        ("x" * (LONGEST + 1), ""),
    ],
)
def test_a_reply_as_a_phrase(reply, name):
    assert phrase(reply) == name


@given(st.text())
def test_any_reply_is_a_short_line_or_nothing(reply):
    name = phrase(reply)
    assert len(name) <= LONGEST and len(name.splitlines()) <= 1 and name == name.strip()


def test_names_over_an_endpoint_are_asked_once_and_kept(server, tmp_path):
    server.answer = lambda body, n: server.chat(f'"cruelty {body["max_tokens"]}".')
    namer = Namer(Endpoint("m", server.url, progress=False), tmp_path / "s.db", excerpts=4)
    silent, later = latent_of(3, []), latent_of(9, [c for c in SAMPLE if not for_naming(c, 0)])
    wanted = (
        LatentName(7, "cruelty 64"),
        LatentName(3, "", "it never fires on these documents"),
        LatentName(9, "", "no excerpt in the naming half of the documents"),
    )
    assert name_latents([FOUND, silent, later], namer) == wanted
    assert name_latents([FOUND, silent, later], namer) == wanted and len(server.asked) == 1
    assert server.texts == [naming(naming_contexts(FOUND, 4, 0))]


def test_failures_stay_failures(server):
    naming_half = [c for c in SAMPLE if for_naming(c, 0)]
    found = [latent_of(i, naming_half[3 * i :][:3]) for i in range(3)]
    replies = {
        naming(naming_contexts(one, 12, 0)): reply for one, reply in zip(found, ["", "y" * 300, None], strict=True)
    }

    def answer(body, n):
        said = replies[body["messages"][0]["content"]]
        return server.Reply({}, status=400) if said is None else server.chat(said)

    server.answer = answer
    namer = Namer(Endpoint("m", server.url, progress=False, retries=0))
    empty, long, refused = name_latents(found, namer)
    assert [one.name for one in (empty, long, refused)] == ["", "", ""]
    assert empty.failure == "an empty reply" and long.failure.startswith("the reply is no phrase: yyy")
    assert "400" in refused.failure


def test_a_namer_that_asks_for_nothing_is_refused(server):
    with pytest.raises(EmlabError, match="cannot do with 12 excerpts, 0 tests, 2 controls"):
        Namer(Endpoint("m", server.url), tests=0)
