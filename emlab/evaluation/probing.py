"""One call to a judge's model before anything is sampled or trained, so that what cannot be asked is said at once."""

from __future__ import annotations

from dataclasses import replace

from emlab.errors import EmlabError
from emlab.evaluation.judging import Judge
from emlab.evaluation.labelling import Labeller
from emlab.models.completion import Request, complete
from emlab.models.endpoint import Endpoint
from emlab.models.server import Usage

RETRIES = 2
"""How often the call is tried again: a server that is down must not take a minute to say so."""


def probe(judge: Judge | Labeller) -> None:
    """Ask the model of a judge behind an endpoint for one number; other judges are there already.

    The reply stands in the judge's store, where it has one, and is not asked for again. EmlabError where the server
    cannot be reached, knows neither the key nor the model, or gives no probabilities of numbers though the judge needs
    them.
    """
    by = getattr(judge, "by", None)
    if not isinstance(by, Endpoint):
        return
    asked = Request(
        [{"role": "user", "content": "Reply with the number 85 and nothing else."}],
        numbers=getattr(judge, "numbers", False),
    )
    try:
        once = replace(by, retries=min(RETRIES, by.retries), progress=False, usage=Usage())
        (reply,) = complete(once, [asked], getattr(judge, "store", None))
    except EmlabError as error:
        raise EmlabError(f"The judge {by.name} cannot be asked: {error}") from None
    if reply.failure[:1] in ("4", "5"):  # what the server says of every request
        raise EmlabError(f"The judge {by.name} at {by.base_url} cannot be asked ({reply.failure}); mend that first.")
