"""What a language model is asked about latents, in emlab's own words, and how an excerpt is shown to it.

The tasks are those of Paulo et al. 2024, "Automatically Interpreting Millions of Features in Large Language Models"
(arXiv:2410.13928): name a latent from excerpts; *detection*, tell by the name whether it fires in an excerpt;
*fuzzing*, tell by the name whether the right tokens of an excerpt are marked. They ask about five excerpts in a
request; here it is one, so that no answer depends on the excerpts beside it and every reply is a single word.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from emlab.discovery.contexts import Context

OPEN, CLOSE = "«", "»"
"""They stand around a marked token, and are taken out of the texts themselves."""

STRONG = 0.3
"""For naming, tokens are marked whose activation is at least this share of the excerpt's peak."""


def marked(context: Context, places: Collection[int]) -> str:
    """The text of the context, the tokens at `places` between « and »; tokens that stand together share them."""
    parts, inside = [], False
    for place, token in enumerate(context.tokens):
        if (place in places) != inside:
            parts.append(CLOSE if inside else OPEN)
            inside = not inside
        parts.append(bare(token))
    return "".join(parts) + (CLOSE if inside else "")


def bare(text: str) -> str:
    """The text without the marks."""
    return text.replace(OPEN, '"').replace(CLOSE, '"')


def strongest(context: Context) -> list[int]:
    """The places of the tokens on which the latent is strong."""
    return [i for i, value in enumerate(context.activations) if value > 0 and value >= STRONG * context.peak]


def naming(contexts: Sequence[Context]) -> str:
    """The request for a name, from the contexts."""
    most = max(context.peak for context in contexts)
    shown = "\n\n".join(
        f"Excerpt {i} (strength {max(1, round(10 * c.peak / most))} of 10):\n{marked(c, strongest(c))}"
        for i, c in enumerate(contexts, 1)
    )
    return f"""\
You are helping to find out what one internal feature of a language model responds to. The feature is active on some
tokens of a text and silent on the others. Below are excerpts of different texts in which it is active. The tokens on
which it is most active stand between {OPEN} and {CLOSE}, and over each excerpt stands how strongly it is active there.

{shown}

Find what makes the feature active: a word, a topic, a tone, an intention of the writer, or a place in the text. It must
hold for the excerpts of low strength as well. Name it in one short phrase of at most fifteen words, as specific as the
excerpts allow. Do not mention the marks or the strengths. Reply with the phrase and nothing else."""


def detection(name: str, context: Context) -> str:
    """The question whether what is named occurs in the context."""
    return f"""\
An internal feature of a language model is described so:

<description>
{name}
</description>

Here is an excerpt of a text. It may begin and end in the middle of a sentence.

<excerpt>
{bare(context.text)}
</excerpt>

By the description, would the feature be active anywhere in this excerpt? Reply with YES or NO and nothing else."""


def fuzzing(name: str, context: Context, places: Collection[int]) -> str:
    """The question whether the tokens at `places` are those that are named."""
    return f"""\
An internal feature of a language model is described so:

<description>
{name}
</description>

Here is an excerpt of a text in which some tokens are marked: they stand between {OPEN} and {CLOSE}. In some excerpts
these are the tokens on which the feature is active, in others they were picked at random.

<excerpt>
{marked(context, places)}
</excerpt>

By the description, is the feature active on the marked tokens? Reply with YES or NO and nothing else."""
