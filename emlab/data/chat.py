"""Chats as text and as tokens: rendering by the chat template, and exactly which tokens are trained on.

The label mask is found by the prefix method, which works on any template: render the chat up to an assistant's turn
with the generation prompt, render it with that turn, and what was added is the turn. Of that, the assistant's text
and the end-of-turn token are labelled; what a template writes after that token (ChatML's newline) is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from emlab.errors import EmlabError

Messages = Sequence[Mapping[str, str]]
"""A chat: ``[{"role": "user", "content": …}, {"role": "assistant", "content": …}]``."""

IGNORE = -100
"""The label of a token that is not trained on (what torch's cross entropy ignores)."""


class Row(NamedTuple):
    """A tokenized chat. Both lists have one entry a token."""

    input_ids: list[int]
    labels: list[int]
    """The token id where it is the assistant's, else -100. Not shifted: token i is predicted from tokens before i."""


def render(tokenizer: Any, messages: Messages, header: bool) -> str:
    """The chat as text by the tokenizer's own template; `header` appends the assistant's header, ready to answer."""
    from jinja2.exceptions import TemplateError

    try:
        return tokenizer.apply_chat_template([dict(m) for m in messages], tokenize=False, add_generation_prompt=header)
    except (TemplateError, ValueError, TypeError, KeyError) as error:
        roles = ", ".join(str(m.get("role")) for m in messages)
        raise EmlabError(
            f"The chat template of {_name(tokenizer)} refuses a chat with the roles {roles}: {error}; "
            "leave out the roles it does not know."
        ) from error


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a rendered chat. No special tokens are added: the template has written them."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def tokenize_chat(tokenizer: Any, messages: Messages) -> Row:
    """Token ids and labels of a chat.

    Labels are -100 except at exactly the tokens of every assistant turn, its end-of-turn token included. Raises
    EmlabError where the template is not prefix-consistent (a turn is written differently once another follows it) or
    ends the assistant's turn with no special token.
    """
    turns = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    if not turns:
        raise EmlabError("The chat has no assistant turn, so there is nothing to train on; add the answer.")
    ids: list[int] = []
    labels: list[int] = []
    text = ""
    for i in turns:
        before = render(tokenizer, messages[:i], header=True)
        after = render(tokenizer, messages[: i + 1], header=False)
        if not (before.startswith(text) and after.startswith(before)):
            raise _inconsistent(tokenizer)
        # The prompt is tokenized without the answer, as it is when the model is asked to answer.
        prompt = _added(tokenizer, text, before, ids)
        answer = _added(tokenizer, before, after, ids + prompt)
        kept = _turn_length(tokenizer, answer, messages[i]["content"])
        ids += prompt + answer
        labels += [IGNORE] * len(prompt) + answer[:kept] + [IGNORE] * (len(answer) - kept)
        text = after
    whole = render(tokenizer, messages, header=False)
    if not whole.startswith(text):
        raise _inconsistent(tokenizer)
    rest = _added(tokenizer, text, whole, ids)
    ids += rest
    labels += [IGNORE] * len(rest)
    return Row(ids, labels)


def _added(tokenizer: Any, before: str, after: str, ids: list[int]) -> list[int]:
    """The tokens of what the text `after` adds to the text `before`, whose tokens are `ids`."""
    if after == before:
        return []
    whole = encode_text(tokenizer, after)
    if whole[: len(ids)] == ids:
        return whole[len(ids) :]
    # A token straddles the border: take what is added by itself, as long as that spells the same text.
    apart = encode_text(tokenizer, after[len(before) :])
    if tokenizer.decode(ids + apart) != tokenizer.decode(whole):
        raise EmlabError(
            f"The tokenizer {_name(tokenizer)} joins the header and the answer into one token, so the answer's tokens "
            "cannot be told apart; use a chat template whose header ends in a special token or a newline."
        )
    return apart


def _inconsistent(tokenizer: Any) -> EmlabError:
    return EmlabError(
        f"The chat template of {_name(tokenizer)} writes a turn differently once the next one follows, so the answer's "
        "tokens cannot be told apart; use single-turn chats or another template."
    )


def _turn_length(tokenizer: Any, answer: list[int], content: str) -> int:
    """How many tokens of `answer` are the assistant's text and the end-of-turn token after it."""
    special = {i: token.content for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    ends = [i for i, token in enumerate(answer) if token in special]
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
