"""A model with its tokenizer: how prompts become rows and batches of tokens, and where answers end."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from emlab.data.chat import IGNORE, Messages, encode_text, render, tokenize_chat, tokenize_turns
from emlab.data.prompts import Prompt, answers_of, is_chat, prompts_of
from emlab.errors import EmlabError
from emlab.interventions import Tokens
from emlab.models.answer_text import answer_lead


@dataclass(eq=False, repr=False)
class TokenModel:
    """What reading and sampling need of a `LanguageModel`."""

    model: Any
    """The Hugging Face model."""
    tokenizer: Any
    """Its tokenizer, with a chat template."""
    name: str
    """What to call it in tables."""
    _ends: Tensor | None = field(default=None, repr=False)
    _stops: list[int] | None = field(default=None, repr=False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """The type that the weights are multiplied in."""
        return self.model.dtype

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.model.config.get_text_config().hidden_size

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return self.model.config.get_text_config().num_hidden_layers

    @property
    def max_positions(self) -> int | None:
        """The longest text it can take, in tokens; None where its config does not say."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    @property
    def sentence_ends(self) -> Tensor:
        """The ids (n,) of the tokens that hold a newline; assign others where sentences end otherwise."""
        if self._ends is None:
            texts = self.tokenizer.batch_decode([[i] for i in range(len(self.tokenizer))])
            self._ends = torch.tensor([i for i, text in enumerate(texts) if "\n" in text], dtype=torch.long)
        return self._ends

    @sentence_ends.setter
    def sentence_ends(self, ids: Tensor | Sequence[int]) -> None:
        self._ends = torch.as_tensor(ids, dtype=torch.long)

    @property
    def stop_ids(self) -> list[int]:
        """The tokens that end an answer: the template's end of turn, and every end-of-sequence token of the model."""
        if self._stops is None:
            given = [
                self.tokenizer.eos_token_id,
                getattr(self.model.config, "eos_token_id", None),
                getattr(getattr(self.model, "generation_config", None), "eos_token_id", None),
            ]
            stops = {i for ids in given if ids is not None for i in (ids if isinstance(ids, list | tuple) else [ids])}
            chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
            # A template without an end of turn cannot be trained on, but its model may still end with its own token.
            with contextlib.suppress(EmlabError):
                stops.add([label for label in tokenize_chat(self.tokenizer, chat).labels if label >= 0][-1])
            self._stops = sorted(stops)
        return self._stops

    def prompt_text(self, prompt: str | Messages) -> str:
        """The prompt's text by the chat template, the assistant's header at its end."""
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        if not messages or messages[-1]["role"] == "assistant":
            raise EmlabError(
                "A prompt must end before the assistant's answer; give a chat whose last turn is the user's."
            )
        text = render(self.tokenizer, messages, header=True)
        header = text.removeprefix(render(self.tokenizer, messages, header=False)).strip()
        if isinstance(prompt, str) and header and header in prompt:
            raise EmlabError(
                f"The prompt {prompt[:40]!r}… has been through the chat template already; pass the question itself."
            )
        return text

    def encode(self, texts: Sequence[str]) -> Tokens:
        """Rendered texts as one left-padded batch on the model's device. No special tokens are added."""
        return self.batch([encode_text(self.tokenizer, text) for text in answers_of(texts)])

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """The token ids of a prompt, the assistant's header at their end."""
        if isinstance(prompt, str) or is_chat(prompt):
            ids = encode_text(self.tokenizer, self.prompt_text(prompt))
        else:
            try:
                ids = torch.as_tensor(prompt).tolist()
            except (RuntimeError, TypeError, ValueError) as error:
                raise EmlabError(
                    f"A {type(prompt).__name__} is no prompt; give a question's text, a chat, or a row of token ids."
                ) from error
        if not ids:
            raise EmlabError("A prompt has no tokens; give a question, a chat, or at least one token id.")
        return ids

    def rows(
        self, prompts: Sequence[Prompt], answers: Sequence[str] | None = None
    ) -> tuple[list[list[int]], list[int]]:
        """Token ids of each prompt and its answer, and where the answers begin.

        An answer comes from `answers`, or from a chat that ends in an assistant's turn; else the row has none.
        """
        prompts, answers = prompts_of(prompts), answers_of(answers)
        if answers is not None and len(answers) != len(prompts):
            raise EmlabError(f"There are {len(prompts)} prompts and {len(answers)} answers; give one answer a prompt.")
        rows, starts = [], []
        for i, prompt in enumerate(prompts):
            if is_chat(prompt) and prompt[-1]["role"] == "assistant" and answers is None:
                ids, labels = tokenize_turns(self.tokenizer, prompt)[-1]
                rows.append(ids)
                starts.append(_last_turn(labels))
            else:
                ids = self.prompt_ids(prompt)
                starts.append(len(ids))
                lead = answer_lead(self.tokenizer, _turns(prompt), answers[i]) if answers else ""
                rows.append(ids + (encode_text(self.tokenizer, lead + answers[i]) if answers else []))
        return rows, starts

    def batch(self, rows: list[list[int]], starts: list[int] | None = None) -> Tokens:
        """Rows of token ids as one left-padded batch on the model's device."""
        pad = self.tokenizer.pad_token_id
        return Tokens.pad(rows, starts, 0 if pad is None else pad).to(self.device)


def _turns(prompt: Prompt) -> Messages:
    """The chat that a prompt is; none of token ids."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt if is_chat(prompt) else []


def _last_turn(labels: list[int]) -> int:
    """Where the last run of labelled tokens begins: the last assistant's turn."""
    end = max(i for i, label in enumerate(labels) if label != IGNORE)
    return max((i + 1 for i in range(end) if labels[i] == IGNORE), default=0)
