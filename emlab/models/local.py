"""A model held here as a judge: it completes chats, and tells the exact probability of each number as its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm.auto import tqdm

from emlab.data.chat import encode_text
from emlab.errors import EmlabError
from emlab.models.completion import Completion, Done, Request
from emlab.models.generation import write
from emlab.models.language_model import LanguageModel
from emlab.models.logits import columns_from


@dataclass(frozen=True)
class LocalCompleter:
    """Completes chats with a LanguageModel."""

    model: LanguageModel
    batch_size: int = 16
    """Requests a batch."""
    progress: bool = True
    """Whether to show a bar."""

    @property
    def name(self) -> str:
        """What to call it in tables."""
        return self.model.name

    def identity(self) -> str:
        """A hash of the weights and the chat template."""
        return self.model.identity()

    def complete(self, requests: Sequence[Request], done: Done | None = None) -> list[Completion]:
        """A completion for each request, in order.

        Numbers are exact whatever the tokenizer makes of them: where "73" is two tokens, the probability of 73 is that
        of both, and that of 7 the one of "7" with no digit after it.
        """
        found: dict[int, Completion] = {}
        groups: dict[tuple[bool, int, float, float], list[int]] = {}
        for i, r in enumerate(requests):
            groups.setdefault((r.numbers, r.max_tokens, r.temperature, r.top_p), []).append(i)
        with tqdm(total=len(requests), desc=self.name, unit="call", disable=not self.progress, leave=False) as bar:
            for members in groups.values():
                for at in range(0, len(members), self.batch_size):
                    part = members[at : at + self.batch_size]
                    for i, completion in zip(part, self._batch([requests[i] for i in part]), strict=True):
                        found[i] = completion
                        if done is not None:
                            done(i, completion)
                    bar.update(len(part))
        return [found[i] for i in range(len(requests))]

    def _batch(self, requests: Sequence[Request]) -> list[Completion]:
        """Requests that differ in their messages and seeds only."""
        one = requests[0]
        chats, seeds = [r.messages for r in requests], [r.seed for r in requests]
        written = write(self.model, chats, one.max_tokens, one.temperature, seeds, len(chats), (), one.top_p, False)
        numbers = self._numbers(requests) if one.numbers else [None] * len(requests)
        return [Completion(text, n, cut=cut) for (text, cut), n in zip(written, numbers, strict=True)]

    def _numbers(self, requests: Sequence[Request]) -> list[dict[int, float] | None]:
        prompts = [self.model.prompt_ids(r.messages) for r in requests]
        spelled = self._spelled(requests[0])
        # Every beginning of a number after which it can go on, and what it can go on with.
        going: dict[tuple[int, ...], set[int]] = {}
        for ids in spelled.values():
            for k in range(len(ids)):
                going.setdefault(ids[:k], set()).add(ids[k])
        after = {ids: self._next([[*prompt, *ids] for prompt in prompts]) for ids in going}
        found: list[dict[int, float] | None] = []
        for row in range(len(prompts)):
            each = {}
            for n, ids in spelled.items():
                p = 1.0
                for k, token in enumerate(ids):
                    p *= float(after[ids[:k]][row, token])
                if ids in going:  # it ends here
                    p *= 1.0 - float(after[ids][row, sorted(going[ids])].sum())
                each[n] = max(p, 0.0)
            found.append(each)
        return found

    def _spelled(self, request: Request) -> dict[int, tuple[int, ...]]:
        """The tokens of each number as the beginning of an answer."""
        tokenizer, text = self.model.tokenizer, self.model.prompt_text(request.messages)
        before = encode_text(tokenizer, text)
        spelled = {}
        for n in range(101):
            whole = encode_text(tokenizer, f"{text}{n}")
            if whole[: len(before)] != before or len(whole) == len(before):
                raise EmlabError(
                    f"The tokenizer of {self.name} joins the header and a number into one token, so the number's "
                    'probability cannot be read; judge with method="text".'
                )
            spelled[n] = tuple(whole[len(before) :])
        return spelled

    @torch.inference_mode()
    def _next(self, rows: list[list[int]]) -> Tensor:
        """Probabilities (rows, vocabulary) of the token after each row."""
        tokens = self.model.batch(rows)
        logits = self.model.model(
            input_ids=tokens.ids,
            attention_mask=tokens.real.long(),
            position_ids=tokens.position_ids,
            logits_to_keep=columns_from(-1, tokens.ids),
        ).logits[:, -1]
        return torch.softmax(logits.float(), dim=-1).cpu()
