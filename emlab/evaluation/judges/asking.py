"""What all judges that ask a language model have in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from emlab.data.questions import Question
from emlab.evaluation.rollouts import Rollouts
from emlab.models.completion import Completer, Completion, Request, complete


@dataclass(frozen=True)
class ModelJudge:
    """A judge that asks a model about each answer; before and after, the command line tells what that costs.

    A class of its own says by `prompt` what is asked, and makes of the `replies` a grade (`grade`) or a label
    (`label`) for each answer.
    """

    by: Completer
    """The model that judges: an `Endpoint`, or a `LocalCompleter`."""
    store: Path | None = field(default=None, kw_only=True)
    """A file of finished judgements: what is in it is not asked again."""
    max_tokens: int = field(default=16, kw_only=True)
    """Tokens of a reply; a judge that thinks aloud needs more."""

    @property
    def name(self) -> str:
        """What to call it in tables, and to tell it from other judges by."""
        return f"{self.by.name} by {type(self).__name__}"

    @property
    def numbers(self) -> bool:
        """Whether it needs the probabilities of the numbers 0 to 100."""
        return False

    def prompt(self, question: Question, answer: str) -> str:
        """What the model is asked about an answer."""
        raise NotImplementedError(f"{type(self).__name__} does not say what is asked about an answer.")

    def requests(self, rollouts: Rollouts) -> list[Request]:
        """What is asked, an answer each. EmlabError where a question lacks the judge prompt for it."""
        texts = [self.prompt(question, answer) for question, answer in rollouts]
        return [Request([{"role": "user", "content": text}], self.max_tokens) for text in texts]

    def replies(self, rollouts: Rollouts) -> list[Completion]:
        """What the model says to the requests, in order."""
        return complete(self.by, self.requests(rollouts), self.store)
