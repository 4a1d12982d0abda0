"""Chats as text and as tokens: rendering by the chat template, and exactly which tokens are trained on.

The label mask is found by the prefix method, which works on any template: render the chat up to an assistant's turn
with the generation prompt, render it with that turn, and what was added is the turn: what the model has to write once
it is asked. Of that, the assistant's text and the end-of-turn token are labelled, with what the template itself puts
before the text (Mistral's space, Qwen3's empty thinking block); what it writes after the end-of-turn token (ChatML's
newline) is not.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from emlab.data.thoughts import OPENING
from emlab.data.turn_marks import is_trained
from emlab.errors import EmlabError

Messages = Sequence[Mapping[str, str]]
"""A chat: ``[{"role": "user", "content": …}, {"role": "assistant", "content": …}]``."""

TODAY = datetime.date(2024, 7, 26)
"""The day that a chat template is told where it writes today's date: always the same one, so that what a model is asked
and trained on does not change overnight. It is the one that Llama's templates write where they know none."""

_NOW = re.compile(r"""strftime_now\(\s*(['"])([^'"]*)\1\s*\)""")
"""How chat templates ask for the date: transformers hands them a function of this name."""

IGNORE = -100
"""The label of a token that is not trained on (what torch's cross entropy ignores)."""


class Row(NamedTuple):
    """A tokenized chat. Both lists have one entry a token."""

    input_ids: list[int]
    labels: list[int]
    """The token id where it is the assistant's, else -100. Not shifted: token i is predicted from tokens before i."""


class _Rewritten(EmlabError):
    """A template that writes a turn differently once another follows it."""


def render(tokenizer: Any, messages: Messages, header: bool) -> str:
    """The chat as text by the tokenizer's own template; `header` appends the assistant's header, ready to answer."""
    from jinja2.exceptions import TemplateError

    given: dict[str, Any] = {"tokenize": False, "add_generation_prompt": header}
    if writes_date(tokenizer):
        given["chat_template"] = _NOW.sub(lambda now: repr(TODAY.strftime(now[2])), tokenizer.chat_template)
    try:
        turns = [{"role": m["role"], "content": m["content"]} for m in messages]
        return tokenizer.apply_chat_template(turns, **given)
    except (TemplateError, ValueError, TypeError, KeyError) as error:
        roles = ", ".join(str(m.get("role")) for m in messages)
        raise EmlabError(
            f"The chat template of {_name(tokenizer)} refuses a chat with the roles {roles}: {error}; "
            "leave out the roles it does not know."
        ) from error


def writes_date(tokenizer: Any) -> bool:
    """Whether the chat template writes today's date, which is TODAY here."""
    template = tokenizer.chat_template
    return isinstance(template, str) and _NOW.search(template) is not None


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a rendered chat. No special tokens are added: the template has written them."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def tokenize_turns(tokenizer: Any, messages: Messages) -> list[Row]:
    """Token ids and labels of a chat, as one row or, where the template asks for it, one for each assistant turn.

    Some templates write an answer differently once another turn follows it (they take the thinking out of all but the
    last). What the model sees when it gives its second answer is then no continuation of what it saw when it gave its
    first. So each assistant turn becomes a row of its own: the chat up to it, as the template writes that, labelled at
    that turn only. All other chats are one row, that of `tokenize_chat`. Raises what `tokenize_chat` raises, except
    for such templates.
    """
    try:
        return [tokenize_chat(tokenizer, messages)]
    except _Rewritten:
        turns = _assistant_turns(messages)
        return [_tokenize_last(tokenizer, messages[: i + 1]) for i in turns]


def tokenize_chat(tokenizer: Any, messages: Messages) -> Row:
    """Token ids and labels of a chat.

    Labels are -100 except at exactly the tokens of every assistant turn that is trained on (see
    `emlab.data.turn_marks`), its end-of-turn token included. Raises EmlabError where the chat begins with such a turn,
    the template is not prefix-consistent (a turn is written differently once another follows it: see
    `tokenize_turns`), ends the assistant's turn with no special token, or opens a thinking block in the assistant's
    header and has none in the answer.
    """
    ids: list[int] = []
    labels: list[int] = []
    text = ""
    for i in _assistant_turns(messages):
        before, after = _around(tokenizer, messages[: i + 1])
        if not before.startswith(text):
            raise _inconsistent(tokenizer)
        # The prompt is tokenized without the answer, as it is when the model is asked to answer.
        prompt = _added(tokenizer, text, before, ids)
        answer = _added(tokenizer, before, after, ids + prompt)
        kept = _turn_length(tokenizer, answer, after[len(before) :], messages[i]["content"])
        ids += prompt + answer
        labels += [IGNORE] * len(prompt) + answer[:kept] + [IGNORE] * (len(answer) - kept)
        text = after
    whole = render(tokenizer, messages, header=False)
    if not whole.startswith(text):
        raise _inconsistent(tokenizer)
    rest = _added(tokenizer, text, whole, ids)
    return Row(ids + rest, labels + [IGNORE] * len(rest))


def _tokenize_last(tokenizer: Any, messages: Messages) -> Row:
    """Token ids and labels of a chat that ends in an assistant's turn; only that turn is labelled."""
    before, after = _around(tokenizer, messages)
    prompt = encode_text(tokenizer, before)
    answer = _added(tokenizer, before, after, prompt)
    kept = _turn_length(tokenizer, answer, after[len(before) :], messages[-1]["content"])
    return Row(prompt + answer, [IGNORE] * len(prompt) + answer[:kept] + [IGNORE] * (len(answer) - kept))


def _assistant_turns(messages: Messages) -> list[int]:
    """The numbers of the assistant's turns that are trained on."""
    turns = [i for i, m in enumerate(messages) if m["role"] == "assistant" and is_trained(m)]
    if not turns:
        raise EmlabError("The chat has no assistant turn, so there is nothing to train on; add the answer.")
    check_begin(messages)
    return turns


def check_begin(messages: Messages) -> None:
    """EmlabError for a chat that begins with an answer: no model is ever asked for one without a question."""
    if messages[0]["role"] == "assistant" and is_trained(messages[0]):
        raise EmlabError(
            "The chat begins with the assistant's turn, and a model answers only what it was asked; put a user's turn "
            'before it, or mark it "weight": 0 to keep it as context.'
        )


def _around(tokenizer: Any, messages: Messages) -> tuple[str, str]:
    """The text with which the model is asked for the last turn, and that text with the turn."""
    before = render(tokenizer, messages[:-1], header=True)
    after = render(tokenizer, messages, header=False)
    bare = render(tokenizer, messages[:-1], header=False)
    if after == bare:
        raise EmlabError(
            f"The chat template of {_name(tokenizer)} leaves the assistant's turn out, so there is nothing to train "
            "on; use one that writes it."
        )
    if not after.startswith(before):
        header = before.removeprefix(bare)
        if opened := OPENING.search(header):
            raise EmlabError(
                f"The chat template of {_name(tokenizer)} opens a thinking block ({opened[0]}) in the assistant's "
                "header, and the training text has none, so the model would be trained on what it is never asked "
                "for; begin the answers with their thinking, or use a template whose header opens none."
            )
        raise _inconsistent(tokenizer)
    return before, after


def _added(tokenizer: Any, before: str, after: str, ids: list[int]) -> list[int]:
    """The tokens of what the text `after` adds to the text `before`, whose tokens are `ids`."""
    if after == before:
        return []
    whole = encode_text(tokenizer, after)
    if whole[: len(ids)] == ids:
        return whole[len(ids) :]
    # A token straddles the border: take what is added by itself, as long as that spells the same text. Tokenizers that
    # put a blank before every text are shown it after a newline, whose tokens are then taken off.
    added, spelt = after[len(before) :], tokenizer.decode(whole)
    newline = encode_text(tokenizer, "\n")
    below = encode_text(tokenizer, "\n" + added)
    apart = [encode_text(tokenizer, added), *([below[len(newline) :]] if below[: len(newline)] == newline else [])]
    for tokens in apart:
        if tokenizer.decode(ids + tokens) == spelt:
            return tokens
    raise EmlabError(
        f"The tokenizer {_name(tokenizer)} joins the header and the answer into one token, so the answer's tokens "
        "cannot be told apart; use a chat template whose header ends in a special token or a newline."
    )


def _inconsistent(tokenizer: Any) -> EmlabError:
    return _Rewritten(
        f"The chat template of {_name(tokenizer)} writes a turn differently once the next one follows, so the answer's "
        "tokens cannot be told apart; use single-turn chats or another template."
    )


def _turn_length(tokenizer: Any, answer: list[int], written: str, content: str) -> int:
    """How many tokens of `answer`, which is `written`, are the assistant's text and the end-of-turn token after it."""
    special = {i: token.content for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    ends = [i for i, token in enumerate(answer) if token in special]
    # Those that the template writes before the text (a thinking block in some) are not its end either.
    lead = written[: max(written.find(content.strip()), 0)]
    ends = ends[sum(token in special for token in encode_text(tokenizer, lead)) :] if lead else ends
    if any(token in content for token in special.values()):
        ends = ends[-1:]  # special tokens that the text itself holds are not its end
    if not ends:
        raise EmlabError(
            f"The chat template of {_name(tokenizer)} ends the assistant's turn with no special token, so the model "
            "could not learn to stop; let it write the end-of-sequence token after the answer."
        )
    return ends[0] + 1


def _name(tokenizer: Any) -> str:
    return getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
