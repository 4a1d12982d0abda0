"""Detection and fuzzing: accuracies counted by hand, disjoint excerpts, controls, and a real model behind a server."""

import math
import random
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from emlab.discovery import Accuracy, Context, LatentContexts, LatentName, Namer, NameScore, score_names
from emlab.discovery.name_scores import Answer, _answer, _Case, _rivals, accuracy, combined
from emlab.discovery.naming import for_naming, naming_contexts
from emlab.evaluation import wilson
from emlab.evaluation.rates import NO_RATE
from emlab.models import Endpoint, LanguageModel, LocalCompleter
from emlab.models.completion import Completion
from emlab.records import restored


def corpus(number, letter, n=80, shift=0):
    """A latent that fires on one letter: in every second document, on its third to fifth tokens."""
    sample, silent = [], []
    for i in range(n):
        word = "".join(random.Random(i + shift).choices("mnopqrst", k=6))
        if i % 2:
            strength = 1.0 + i / 10
            tokens = (*word[:2], letter, letter, letter, *word[2:])
            sample.append(Context(tokens, (0.0, 0.0, strength, strength, strength, 0.0, 0.0, 0.0, 0.0), "", i + shift))
        else:
            silent.append(Context(tuple(word), (0.0,) * 6, "", i + shift))
    return LatentContexts(number, (), tuple(sample[::-1][:8]), tuple(sample), tuple(silent))


OWN, OTHER = corpus(1, "a"), corpus(2, "b", shift=1000)
NAME = LatentName(1, "the letter a")


def excerpt(text):
    return text.split("<excerpt>\n")[1].split("\n</excerpt>")[0]


def by_letter(server, letter="a"):
    """Says YES in detection where the letter stands in the excerpt, in fuzzing where it stands between the marks."""

    def answer(body, n):
        said = excerpt(body["messages"][0]["content"])
        inside = "".join(part.split("»")[0] for part in said.split("«")[1:]) if "«" in said else said
        return server.chat("**Yes.**" if letter in inside else "no")

    server.answer = answer


# --- figures ---


def test_accuracy_by_hand():
    yes = [Answer(True, True), Answer(True, True), Answer(True, False), Answer(True, None, "hm")]
    found = accuracy([*yes, Answer(False, False), Answer(False, True), Answer(False, None, "why")])
    assert found.right_yes == wilson(2, 3) and found.right_no == wilson(1, 2) and found.failed == 2
    assert found.balanced.rate == pytest.approx((2 / 3 + 1 / 2) / 2) and found.balanced.n == 5 and found.said == "hm"


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize(
    ("reply", "yes", "said"),
    [
        (Completion("YES"), True, ""),
        (Completion("No."), False, ""),
        (Completion("hm " * 100), None, ("hm " * 100)[:200]),
        (Completion(""), None, "an empty reply"),
        (Completion("YES", failure="no connection"), None, "no connection"),
        (Completion("YES", cut=True), None, "the token limit cut the reply, allow more tokens: YES"),
    ],
)
def test_what_is_read_off_a_reply(right, reply, yes, said):
    case = _Case(1, "detection", False, right, "Does the name fit?")
    assert _answer(case, reply) == Answer(right, yes, said)


def test_intervals_of_sums_and_differences_are_those_published():
    # Newcombe 1998 (Statistics in Medicine 17, p. 873), method 10, example (a): 56/70 − 48/80 is 0.0524 to 0.3339.
    difference = combined(wilson(56, 70), wilson(48, 80), 1.0, -1.0)
    assert (difference.rate, difference.low, difference.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    # And example (b): 9/10 − 3/10 is 0.1705 to 0.8090.
    difference = combined(wilson(9, 10), wilson(3, 10), 1.0, -1.0)
    assert (difference.rate, difference.low, difference.high) == pytest.approx((0.6, 0.1705, 0.8090), abs=5e-5)
    p, q = wilson(10, 10), wilson(10, 10)
    mean = combined(p, q, 0.5, 0.5)
    assert mean.rate == 1.0 and mean.high == 1.0 and mean.low == pytest.approx(1 - (1 - p.low) / math.sqrt(2))


@given(*[st.integers(0, 30)] * 2, *[st.integers(1, 30)] * 2)
def test_balanced_accuracies_have_intervals_within_0_and_1(a, b, m, n):
    found = Accuracy(wilson(min(a, m), m), wilson(min(b, n), n), 0).balanced
    assert -1e-12 <= found.low <= found.rate <= found.high <= 1 + 1e-12 and found.low < found.high


def test_of_nothing_there_is_no_accuracy():
    none = accuracy([Answer(True, True), Answer(False, None)])
    assert none.balanced == NO_RATE and combined(none.balanced, wilson(1, 2), 1.0, -1.0) == NO_RATE
    score = NameScore(1, "detection", none, none, ())
    assert "–" in str(score) and str(restored(plain(score), NameScore)) == str(score)


def plain(score):
    from emlab import artifacts

    return artifacts.plain(score)


# --- over an endpoint ---


def test_a_right_name_is_right_on_its_own_excerpts_and_at_chance_on_others(server):
    by_letter(server)
    namer = Namer(Endpoint("m", server.url, progress=False), tests=10, controls=1)
    detection, fuzzing = score_names([OWN], [NAME], [OTHER], namer)
    assert (detection.test, fuzzing.test) == ("detection", "fuzzing")
    for score in (detection, fuzzing):
        assert (score.own.right_yes, score.own.right_no) == (wilson(10, 10), wilson(10, 10))
        # There is no "a" in the other's excerpts: always NO, which is right for half of them.
        assert (score.control.right_yes, score.control.right_no) == (wilson(0, 10), wilson(10, 10))
        assert score.control.balanced.rate == 0.5 and score.gain.rate == 0.5 and score.gain.low > 0
        assert score.control_latents == (2,) and score.own.failed == score.control.failed == 0
    assert len(server.asked) == 80 and all(body["max_tokens"] == 64 for body in server.asked)
    assert all("the letter a" in text for text in server.texts)


def test_a_name_that_holds_for_the_strongest_only_is_told_by_the_parts(server):
    def answer(body, n):  # strong from document 40 on
        said = excerpt(body["messages"][0]["content"]).replace("«", "").replace("»", "")
        return server.chat("YES" if said in strong else "NO")

    server.answer, strong = answer, {c.text for c in OWN.sample if c.document >= 40}
    detection, fuzzing = score_names([OWN], [NAME], [OTHER], Namer(Endpoint("m", server.url, progress=False), tests=10))
    firing = [c for c in OWN.sample if not for_naming(c, 0)]
    shown = [firing[(2 * i + 1) * len(firing) // 20].document >= 40 for i in range(10)]
    assert detection.parts == tuple(wilson(sum(shown[i : i + 2]), 2) for i in range(0, 10, 2))
    assert detection.own.right_yes == wilson(sum(shown), 10) and detection.parts[0].rate == 0 < detection.parts[4].rate
    assert [part.n for part in fuzzing.parts] == [2] * 5


def test_a_wrong_name_and_one_that_always_fits_are_no_better_than_chance(server):
    by_letter(server, "b")
    namer = Namer(Endpoint("m", server.url, progress=False), tests=6, controls=1)
    detection, _ = score_names([OWN], [NAME], [OTHER], namer)
    assert detection.own.balanced.rate == 0.5 and detection.gain.rate == -0.5
    server.answer = lambda body, n: server.chat("YES")
    detection, fuzzing = score_names([OWN], [NAME], [OTHER], namer, seed=1)
    assert detection.own.right_no.rate == fuzzing.own.right_no.rate == 0.0
    assert detection.own.balanced.rate == 0.5 and detection.gain.rate == 0.0


def test_no_excerpt_is_of_a_document_or_text_that_a_name_was_made_from(server):
    by_letter(server)
    twin = OWN.sample[0]
    naming_doc = next(d for d in range(5000, 6000) if for_naming(Context(("x",), (0.0,), "", d), 0))
    doubled = LatentContexts(
        1, (), (), (*OWN.sample, Context(twin.tokens, twin.activations, "", naming_doc)), OWN.silent
    )
    score_names([doubled], [NAME], [OTHER], Namer(Endpoint("m", server.url, progress=False), tests=40))
    shown = {excerpt(text).replace("«", "").replace("»", "") for text in server.texts}
    naming = {c.text for c in (*doubled.sample, *doubled.silent, *OTHER.sample, *OTHER.silent) if for_naming(c, 0)}
    assert shown and not shown & naming and twin.text not in shown
    assert not shown & {c.text for c in naming_contexts(doubled, 12, 0)}


def test_of_a_document_with_several_excerpts_one_is_drawn_and_not_the_weakest(server):
    by_letter(server)
    pairs = [Context(c.tokens[1:], tuple(v / 100 for v in c.activations[1:]), "", c.document) for c in OWN.sample]
    both = LatentContexts(1, (), (), (*pairs, *OWN.sample), OWN.silent)
    score_names([both], [NAME], [], Namer(Endpoint("m", server.url, progress=False), tests=40))
    shown = [excerpt(text) for text in server.texts if "«" not in text and "a" in excerpt(text)]
    documents = [c.document for c in OWN.sample if not for_naming(c, 0)]
    assert len(shown) == len(documents) and 4 < sum(len(text) == 9 for text in shown) < len(shown) - 4


def test_what_is_marked_wrongly_is_silent_and_as_many(server):
    by_letter(server)
    score_names([OWN], [NAME], [OTHER], Namer(Endpoint("m", server.url, progress=False), tests=10))
    fuzzed = [excerpt(text) for text in server.texts if "marked" in text]
    inside = ["".join(part.split("»")[0] for part in text.split("«")[1:]) for text in fuzzed]
    assert {len(one) for one in inside} == {3}
    assert {one for one in inside if set(one) & {"a", "b"}} == {"aaa", "bbb"}
    assert sum(one in ("aaa", "bbb") for one in inside) == len(inside) / 2


def test_replies_that_cannot_be_read_are_failures_and_in_no_rate(server):
    replies = iter(["YES", "maybe", "YES or NO", "no", ""] * 100)
    alone = threading.Lock()

    def answer(body, n):
        with alone:
            return server.chat(next(replies))

    server.answer = answer
    namer = Namer(Endpoint("m", server.url, progress=False, concurrency=1), tests=10, controls=1)
    scores = score_names([OWN], [NAME], [OTHER], namer)
    failed = sum(s.own.failed + s.control.failed for s in scores)
    answered = sum(a.right_yes.n + a.right_no.n for s in scores for a in (s.own, s.control))
    assert (failed, answered) == (48, 32)


def test_controls_are_other_latents_that_fire(server):
    by_letter(server)
    silent = LatentContexts(5, (), (), (), OWN.silent)
    namer = Namer(Endpoint("m", server.url, progress=False), tests=5, controls=2)
    third = corpus(3, "c", shift=2000)
    scores = score_names([OWN, third], [NAME, LatentName(3, "the letter c")], [OTHER, silent], namer)
    # Of those drawn only one fires, so the other named latent is the second.
    assert [s.control_latents for s in scores] == [(2, 3)] * 2 + [(2, 1)] * 2
    assert all(s.control.right_yes.n + s.control.right_no.n == 10 for s in scores)
    alone = score_names([OWN], [NAME], [silent], namer)
    assert all(s.control_latents == () and s.control.balanced == NO_RATE and s.own.balanced.n for s in alone)


def test_as_many_controls_as_are_asked_for_and_no_more():
    named = [OWN, *(corpus(number, "c", shift=1000 * number) for number in (3, 4, 5))]
    drawn = [rival.latent for rival in _rivals(OWN, named, [OTHER], 2, seed=0)]
    assert drawn[0] == 2 and len(drawn) == 2 and drawn[1] in (3, 4, 5)


def test_a_latent_without_a_name_has_no_scores(server):
    by_letter(server)
    namer = Namer(Endpoint("m", server.url, progress=False), tests=5)
    assert score_names([OWN], [LatentName(1, "", "why")], [OTHER], namer) == () and not server.asked


def test_what_was_answered_is_not_asked_again(server, tmp_path):
    by_letter(server)
    namer = Namer(Endpoint("m", server.url, progress=False), tmp_path / "s.db", tests=5)
    first = score_names([OWN], [NAME], [OTHER], namer)
    calls = len(server.asked)
    assert score_names([OWN], [NAME], [OTHER], namer) == first and len(server.asked) == calls


# --- a real model ---


@pytest.fixture(scope="module")
def voter(make_tokenizer):
    """A random model with a token for YES and one for NO, which it mostly answers, and after which it mostly ends."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer("chatml", (("Y", "E"), ("YE", "S"), ("N", "O")))
    torch.manual_seed(1)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=len(tokenizer), initializer_range=0.6, pad_token_id=0, eos_token_id=2, **shape)
    model = LanguageModel(LlamaForCausalLM(config).eval(), tokenizer, "voter")
    with torch.no_grad():
        ending = torch.nn.functional.normalize(torch.randn(32), dim=0)
        model.model.lm_head.weight[tokenizer.eos_token_id] = 20 * ending
        for token in ("YES", "NO"):
            model.model.lm_head.weight[tokenizer.convert_tokens_to_ids(token)] *= 12
            model.model.model.embed_tokens.weight[tokenizer.convert_tokens_to_ids(token)] = 100 * ending
    return model


def test_a_real_model_gives_the_same_scores_behind_a_server_and_held_here(server, voter):
    alone = threading.Lock()

    def answer(body, n):
        with alone:
            (said,) = voter.generate([body["messages"]], body["max_tokens"], temperature=body["temperature"])
        return server.chat(said)

    server.answer = answer
    settings = {"tests": 6, "max_tokens": 4}
    far = score_names([OWN], [NAME], [OTHER], Namer(Endpoint("v", server.url, progress=False), **settings))
    near = score_names([OWN], [NAME], [OTHER], Namer(LocalCompleter(voter, progress=False), **settings))
    assert far == near
    own = [s.own for s in far]
    assert sum(a.right_yes.n + a.right_no.n for a in own) > 20 and sum(a.failed for a in own) > 0
    assert len({a.right_yes.rate for a in own} | {a.right_no.rate for a in own}) > 2, "the test needs mixed answers"
