"""A judge's model that Inspect runs: what it says of how a reply ended, and of log-probabilities that are none."""

import math

import pytest

from emlab.errors import EmlabError
from emlab.models import Request

pytest.importorskip("inspect_ai")


def test_cut_replies_and_broken_log_probabilities_are_known():
    import anyio
    from inspect_ai.model import Logprob, Logprobs, ModelOutput, TopLogprob

    from emlab.evaluation.inspect_judge import InspectModel

    cut = ModelOutput.from_content("mockllm/model", "85, or", stop_reason="max_tokens")
    whole = ModelOutput.from_content("mockllm/model", "85")
    broken = ModelOutput.from_content("mockllm/model", "85")
    top = [TopLogprob(token="85", logprob=math.nan)]
    broken.choices[0].logprobs = Logprobs(content=[Logprob(token="85", logprob=-0.1, top_logprobs=top)])

    class Model:  # Inspect's own mock counts tokens by a file that it fetches
        outputs = iter([cut, whole, broken])

        async def generate(self, *_, **__):
            return next(self.outputs)

    class Mocked(InspectModel):
        model = Model()

    def ask(numbers):
        return anyio.run(Mocked("m")._one, Request([{"role": "user", "content": "a"}], numbers=numbers))

    assert (ask(False).cut, ask(False).cut) == (True, False)
    found = ask(True)
    assert "nan is no log-probability" in found.failure and found.numbers is None


def test_calls_that_fail_together_say_one_sentence():
    import anyio

    from emlab.evaluation.inspect_judge import InspectModel

    class Failing(InspectModel):
        async def _one(self, request):
            raise EmlabError(request.messages[0]["content"])

    for sentences in (["There is no key."], ["There is no key.", "There is no key."]):
        requests = [Request([{"role": "user", "content": text}]) for text in sentences]
        with pytest.raises(EmlabError, match=r"^There is no key\.$"):
            anyio.run(Failing("m")._all, requests)
