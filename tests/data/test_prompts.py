"""One thing that is asked, and several."""

import numpy as np
import pytest
import torch

from emlab.data.prompts import as_questions, prompts_of
from emlab.data.questions import Question
from emlab.errors import EmlabError

TURN = {"role": "user", "content": "How long?"}
CHAT = [{"role": "system", "content": "Be brief."}, TURN]


@pytest.mark.parametrize(
    "lone", ["How long?", CHAT, (TURN,), [5, 6, 7], torch.tensor([5, 6]), np.array([5, 6])], ids=str
)
def test_a_lone_prompt_is_one_prompt(lone):
    found = prompts_of(lone)
    assert len(found) == 1
    assert found[0] is lone


def test_a_turn_alone_is_a_chat_of_one_turn():
    assert prompts_of(TURN) == [[TURN]]


@pytest.mark.parametrize(
    "several", [["a", "b"], [CHAT, CHAT], ["a", CHAT, [5]], [[5], [6]], torch.ones(2, 3), []], ids=str
)
def test_several_prompts_stay_what_they_are(several):
    assert prompts_of(several) is several


def test_an_iterator_of_prompts_becomes_a_list():
    assert prompts_of(text for text in ("a", "b")) == ["a", "b"]


def test_one_token_id_is_no_prompt():
    with pytest.raises(EmlabError, match="row of them"):
        prompts_of(torch.tensor(5))


def test_texts_and_chats_are_questions():
    assert as_questions("How long?") == [Question("How long?", "", "How long?")]
    assert as_questions([TURN]) == as_questions([[TURN]]) == as_questions("How long?")
    (dressed,) = as_questions(CHAT)
    assert dressed.messages == CHAT
    assert dressed.id != "How long?"  # the same text under a system turn is another question
    assert as_questions(["a", CHAT, Question("q", "d", "t")])[2] == Question("q", "d", "t")
    assert as_questions(Question("q", "d", "t")) == [Question("q", "d", "t")]


def test_a_longer_chat_is_refused_as_a_question():
    talk = [TURN, {"role": "assistant", "content": "Long."}, TURN]
    with pytest.raises(EmlabError, match="has user, assistant, user; give longer chats"):
        as_questions([talk])


@pytest.mark.parametrize("given", [{"prompt": "Hi?"}, {"messages": [{"role": "user", "content": "Hi?"}]}, {}, None])
def test_a_mapping_of_another_kind_and_nothing_are_no_prompts(given):
    for read in (prompts_of, as_questions):
        with pytest.raises(EmlabError, match="is no prompt; give a text"):
            read(given)


def test_questions_are_the_chats_that_ask_them():
    asked = Question("q", "power", "Hi?", system="Be kind.")
    assert prompts_of(asked) == prompts_of([asked]) == [asked.messages]
    assert prompts_of([asked, "Who?"]) == [asked.messages, "Who?"]
    assert as_questions(asked) == as_questions((asked,)) == [asked]
