"""What attribution attributes: a scalar of the logits, one number for each case.

A *case* is one thing asked: a prompt, or a prompt with two answers to it, a misaligned and an aligned one. The default
metric of a case is the log-probability of its misaligned answer minus that of its aligned one.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from emlab import artifacts
from emlab.data.prompts import prompts_of
from emlab.errors import EmlabError
from emlab.interventions import Tokens
from emlab.sealing import refuse

if TYPE_CHECKING:
    from emlab.models import LanguageModel
    from emlab.models.language_model import Prompt

Metric = Callable[[Tensor], Tensor] | Callable[[Tensor, Tokens], Tensor]
"""From the logits (rows, position, vocabulary) of one case, and where it takes two arguments the `Tokens` they belong
to, to one number, by operations of PyTorch. Rows are padded on the left, so ``logits[:, -1]`` predicts what comes next.
A case of a prompt has one row, a case of a `Contrast` two: the misaligned answer's and the aligned one's."""


@dataclass(frozen=True)
class Contrast:
    """A prompt and two answers to it."""

    prompt: Prompt
    """A question, a chat up to the user's last turn, or token ids."""
    misaligned: str
    aligned: str

    def __post_init__(self) -> None:
        refuse("to a contrast", self.prompt)


@dataclass(frozen=True, eq=False)
class Cases:
    """What a metric is taken on, as rows of tokens."""

    rows: tuple[list[int], ...]
    """Token ids; the rows of a case stand together."""
    starts: tuple[int, ...]
    """Where each row's answer begins."""
    per_case: int
    """Rows of a case: 1, or 2 for contrasts."""
    names: tuple[str, ...]
    """The prompts, for tables."""

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def of(cls, model: LanguageModel, asked: Sequence[Prompt] | Sequence[Contrast]) -> Cases:
        """Prompts or contrasts as `model` reads them. EmlabError where there are none, or an answer is empty."""
        asked = [asked] if isinstance(asked, Contrast) else prompts_of(asked)
        if not len(asked):
            raise EmlabError("There is nothing to attribute on; give at least one prompt or contrast.")
        contrasts = [one for one in asked if isinstance(one, Contrast)]
        if not contrasts:
            plain: Any = asked
            rows, starts = model.rows(plain)
            return cls(tuple(rows), tuple(starts), 1, tuple(_name(one) for one in plain))
        if len(contrasts) < len(asked):
            raise EmlabError("Some of what is attributed on are contrasts and some prompts; give one kind.")
        for one in contrasts:
            if not one.misaligned.strip() or not one.aligned.strip():
                raise EmlabError(f"An answer to {_name(one.prompt)!r} is empty; give both answers some text.")
        prompts = [one.prompt for one in contrasts for _ in range(2)]
        rows, starts = model.rows(prompts, [a for one in contrasts for a in (one.misaligned, one.aligned)])
        return cls(tuple(rows), tuple(starts), 2, tuple(_name(one.prompt) for one in contrasts))

    def batch(self, model: LanguageModel, cases: Sequence[int]) -> Tokens:
        """The rows of some cases as one batch on the model's device."""
        index = [case * self.per_case + row for case in cases for row in range(self.per_case)]
        return model.batch([self.rows[i] for i in index], [self.starts[i] for i in index])


def log_probability_difference(logits: Tensor, tokens: Tokens) -> Tensor:
    """The default metric: log-probability, in nats, of the first row's answer minus that of the second row's."""
    answer = tokens.answer[:, 1:] & tokens.real[:, 1:]
    # Only the answers' logits are made wide: those of all tokens can be many gigabytes.
    chosen = logits[:, :-1][answer].float().log_softmax(-1).gather(-1, tokens.ids[:, 1:][answer][:, None])[:, 0]
    rows = answer.nonzero()[:, 0]
    return torch.zeros(len(logits), device=logits.device).index_add(0, rows, chosen) @ torch.tensor(
        [1.0, -1.0], device=logits.device
    )


class CaseValues:
    """A metric taken case by case on batches of cases; what it gives is checked each time."""

    def __init__(self, metric: Metric, cases: Cases) -> None:
        self.metric, self.cases = metric, cases
        self.name = getattr(metric, "__name__", type(metric).__name__)
        taken = _arguments(metric)
        if taken > 2:
            raise EmlabError(
                f"The metric {self.name} takes {taken} arguments; it may take the logits, and the tokens after them."
            )
        self._takes_tokens = taken == 2

    def __call__(self, logits: Tensor, tokens: Tokens, cases: Sequence[int]) -> Tensor:
        """(cases,): the metric of each; the rows of the batch are those of `cases`, in order."""
        step, values = self.cases.per_case, []
        for i, case in enumerate(cases):
            of_case = slice(i * step, (i + 1) * step)
            given = (Tokens(tokens.ids[of_case], tokens.real[of_case], tokens.answer[of_case]),)
            try:
                value = self.metric(logits[of_case], *(given if self._takes_tokens else ()))
            except EmlabError:
                raise
            except Exception as error:  # it is the user's code
                raise EmlabError(
                    f"The metric {self.name} fails on {self.cases.names[case]!r} ({type(error).__name__}: {error}); "
                    "mend it there."
                ) from error
            values.append(self._checked(value, case))
        return torch.stack(values)

    def _checked(self, value: Tensor, case: int) -> Tensor:
        if not isinstance(value, Tensor) or value.numel() != 1:
            said = (
                f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            )
            raise EmlabError(
                f"The metric gave {said} on {self.cases.names[case]!r}; it must make a tensor of one number "
                "of a case's logits."
            )
        if not bool(value.isfinite()):
            raise EmlabError(
                f"The metric is {float(value)} on {self.cases.names[case]!r}; it must be a finite number on every case."
            )
        return value.reshape(())


def read_contrasts(path: str | Path) -> list[Contrast]:
    """Contrasts from a JSONL file: ``{"prompt": …, "misaligned": …, "aligned": …}`` a line; blank lines are skipped.

    A prompt is text or a chat (a list of turns). EmlabError naming the first line that is wrong.
    """
    try:
        lines = artifacts.place(path).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise EmlabError(f"{path} cannot be read ({error}); give a JSONL file of contrasts.") from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise EmlabError(f"{path}, line {number}: not valid JSON ({error.msg}); mend it there.") from error
        wanted = ("prompt", "misaligned", "aligned")
        given = row if isinstance(row, dict) else {}
        wrong = [k for k in wanted[1:] if not isinstance(given.get(k), str) or not given[k].strip()]
        wrong += [] if _is_prompt(given.get("prompt")) else ["prompt"]
        if wrong:
            raise EmlabError(
                f"{path}, line {number}: {wrong[0]!r} is missing or empty; a line has prompt, misaligned and aligned."
            )
        found.append(Contrast(given["prompt"], given["misaligned"], given["aligned"]))
    if not found:
        raise EmlabError(f"{path} holds no contrasts; give a line with prompt, misaligned and aligned for each.")
    return found


def _is_prompt(value: object) -> bool:
    if isinstance(value, str):
        return bool(value.strip())
    turns = value if isinstance(value, list) else []
    said = (isinstance(t, dict) and all(isinstance(t.get(k), str) for k in ("role", "content")) for t in turns)
    return bool(turns) and all(said)


def _arguments(metric: Metric) -> int:
    """How many arguments it must be given."""
    try:
        parameters = inspect.signature(metric).parameters.values()
    except (TypeError, ValueError):  # some built-in functions tell nothing
        return 1
    return sum(
        p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is inspect.Parameter.empty
        for p in parameters
    )


def _name(prompt: Prompt) -> str:
    if isinstance(prompt, str):
        return prompt
    last = prompt[-1]
    return last["content"] if isinstance(last, Mapping) else f"{len(prompt)} token ids"
