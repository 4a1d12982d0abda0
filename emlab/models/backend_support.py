"""What each library can do for each architecture, found by trying it.

For tiny random models, built from configs, every library captures, edits, decodes and differentiates the same batch,
and is held against PyTorch hooks. ``python -m emlab.models.backend_support FILE`` writes the table that comes of it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emlab import artifacts
from emlab.interventions import Ablate, Clamp, Direction, Edit, Steer, Tokens, clamp_encoded, random_directions
from emlab.models.backends.hugging_face import HuggingFaceBackend
from emlab.models.backends.lens_bridge import boot_bridge
from emlab.models.backends.nnsight_trace import trace_model
from emlab.models.backends.protocol import Backend
from emlab.models.wrapping import wrap
from emlab.sites import Site

FAMILIES = (
    *("gpt2", "gpt_neox", "llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "mistral", "phi3", "olmo"),
    *("olmo2", "qwen3_moe", "mixtral", "gpt_oss"),
)
"""The architectures of the table, by ``config.model_type``."""

LIBRARIES = ("Hugging Face", "TransformerLens", "nnsight")

TASKS = (
    *("capture", "steer", "ablate", "clamp", "per row", "left padding", "generate", "gradients"),
    *("resid_mid", "heads"),
)
"""What is tried. The first eight are of the streams that every block has; the last two are all of that at one site."""

ALWAYS = ("resid_pre", "attn_out", "mlp_out", "resid_post")
"""The streams that every block has."""

_ROWS = [[5, 6, 7, 8, 9], [10, 11, 12, 13, 14, 15, 16, 17]]
"""The prompts: one is shorter, and so is padded."""

TOLERANCE = 1e-4
"""How far apart logits may be; activations and gradients, this share of the largest."""


@dataclass(frozen=True)
class Support:
    """Whether a library does a task for a model as PyTorch hooks do."""

    family: str
    library: str
    task: str
    reason: str
    """Why not; empty where it does."""

    def __str__(self) -> str:
        return f"{self.family} in {self.library}: {self.task} {self.reason or 'works'}"


def support_table(families: Iterable[str] = FAMILIES) -> list[Support]:
    """The table for tiny random models of these architectures, in half a second each. Nothing is downloaded."""
    tokenizer = _tokenizer()
    return [row for family in families for row in support_of(tiny_model(family), tokenizer)]


def support_of(model: Any, tokenizer: Any) -> list[Support]:
    """The table for one Hugging Face causal LM in float32. The model is left as it is."""
    reference = HuggingFaceBackend(model)
    makers: dict[str, Callable[[], Backend]] = {
        "Hugging Face": lambda: reference,
        "TransformerLens": lambda: wrap(boot_bridge(model, tokenizer)),
        "nnsight": lambda: wrap(trace_model(model, tokenizer)),
    }
    family = model.config.model_type
    rows = []
    for library in LIBRARIES:
        made: list[Backend] = []
        refused = _reason(lambda make=makers[library], into=made: into.append(make()))  # type: ignore[misc]
        for task in TASKS:
            reason = refused or _reason(lambda task=task, own=made: _try(task, own[0], reference))  # type: ignore[misc]
            rows.append(Support(family, library, task, reason))
    return rows


def markdown(table: Sequence[Support]) -> str:
    """The table as a page: a row an architecture, a column a library, and below it each reason."""
    failed: dict[tuple[str, str], list[Support]] = {}
    for row in table:
        failed.setdefault((row.family, row.library), []).extend([row] if row.reason else [])
    lines = [
        "# What each library can do",
        "",
        f"Found by `python -m emlab.models.backend_support`, which tries {', '.join(TASKS[:-1])} and {TASKS[-1]}",
        "on tiny random models, every library against PyTorch hooks: the same logits to 1e-4, the same greedy tokens.",
        "",
        f"| Architecture | {' | '.join(LIBRARIES)} |",
        f"|---|{'---|' * len(LIBRARIES)}",
    ]
    for family in dict.fromkeys(row.family for row in table):
        cells = [", ".join(f"no {row.task}" for row in failed[family, library]) or "all" for library in LIBRARIES]
        lines.append(f"| {family} | {' | '.join(cells)} |")
    reasons = [f"- {row}" for rows in failed.values() for row in rows]
    return "\n".join([*lines, *(["", "## Reasons", "", *reasons] if reasons else []), ""])


def tiny_model(family: str, seed: int = 0, **config: Any) -> Any:
    """A random causal LM of an architecture: three blocks of width 32, its windows shorter than the texts tried."""
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    shape = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
    if family == "gpt2":
        shape = {"n_embd": 32, "n_layer": 3, "n_head": 4}
    elif family != "gpt_neox":
        shape["num_key_value_heads"] = 2
    if family.startswith(("gemma", "qwen3")) or family == "gpt_oss":
        shape["head_dim"] = 8
    if family in ("gemma2", "gemma3_text", "mistral", "mixtral", "gpt_oss"):
        shape["sliding_window"] = 4
    if family == "qwen3_moe":
        shape |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    if family in ("mixtral", "gpt_oss"):
        shape |= {"num_local_experts": 4, "num_experts_per_tok": 2}
    made = CONFIG_MAPPING[family](
        **{**shape, "vocab_size": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, **config}
    )
    made.initializer_range = 0.3  # large, so that answers differ from prompt to prompt
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(made).eval()
        for name, value in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(value, std=0.1)
    return model


def _try(task: str, own: Backend, reference: Backend) -> None:
    """Raise an error unless the backend does the task as the reference does."""
    tokens = Tokens.pad(_ROWS, None, 0)
    site, width = Site("resid_post", 1), reference.config.get_text_config().hidden_size
    a, b, c = random_directions(3, width, site, seed=0)
    per_row: list[Edit] = [
        Steer(site, torch.stack([a.vector, b.vector]), torch.tensor([6.0, -3.0]), positions="all"),
        Ablate(Site("resid_post", 0), torch.stack([b.vector, c.vector])[:, None], "all"),
        clamp_encoded(site, lambda h: h @ _both(b, c).T.to(h), _both(b, c), 3.0, None, torch.tensor([1, 0]), "prompt"),
        Steer(Site("attn_out", 0), c, torch.tensor([4.0, 0.0]), positions="header"),
        Steer(Site("mlp_out", 2), _both(c, a), 4.0, positions="generated"),
    ]
    edits: dict[str, list[Edit]] = {
        "steer": [Steer(site, a, 5.0, positions="all"), Steer(Site("mlp_out", 0), b, -2.0, positions="last")],
        "ablate": [Ablate(Site(stream, 1), [a, b], "all") for stream in ALWAYS],
        "clamp": [Clamp(site, lambda h: h @ b.vector[:, None].to(h), 2 * b.vector[None], torch.tensor([3.0]), "all")],
        "per row": per_row,
    }
    if task in edits:
        _edits_alike(own, reference, tokens, edits[task])
    elif task == "capture":
        _captures_alike(own, reference, tokens, [Site(stream, i) for stream in ALWAYS for i in range(own.n_blocks)])
    elif task == "left padding":
        together = own.logits(tokens, per_row)
        for i, row in enumerate(_ROWS):
            alone = own.logits(Tokens.pad([row], None, 0), [edit.rows(torch.tensor([i])) for edit in per_row])
            real = tokens.real[i : i + 1]
            _same(together[i : i + 1][real][None], alone, torch.ones_like(alone[..., 0]).bool(), f"row {i}")
    elif task == "generate":
        _writes_alike(own, reference, tokens, per_row)
    elif task == "gradients":
        by = own.gradients(tokens, site, _metric, edits["steer"])
        _same(by, reference.gradients(tokens, site, _metric, edits["steer"]), tokens.real, scaled=True)
    elif task == "resid_mid":
        _try_middle(own, reference, tokens, width)
    else:
        _try_heads(own, reference, tokens)


def _try_middle(own: Backend, reference: Backend, tokens: Tokens, width: int) -> None:
    """Everything at resid_mid; what is pushed in there is what attention might as well have added."""
    site = Site("resid_mid", 1)
    a, b = random_directions(2, width, site, seed=1)
    _captures_alike(own, reference, tokens, [Site("resid_mid", i) for i in range(own.n_blocks)])
    push = Steer(site, _both(a, b), torch.tensor([50.0, -40.0]), positions="all")
    before = reference.logits(tokens, [replace(push, site=Site("attn_out", 1))])
    _same(own.logits(tokens, [push]), before, tokens.real, "the push")
    every: list[Edit] = [push, Ablate(Site("resid_mid", 0), [a, b], "all")]
    _edits_alike(own, reference, tokens, every)
    _writes_alike(own, reference, tokens, every)
    by = own.gradients(tokens, site, _metric, every)
    _same(
        by, reference.gradients(tokens, Site("attn_out", 1), _metric, every), tokens.real, "the gradient", scaled=True
    )


def _try_heads(own: Backend, reference: Backend, tokens: Tokens) -> None:
    """Everything at what the heads give: all of them, and one, which is a slice of that."""
    heads, block = reference.config.get_text_config().num_attention_heads, own.n_blocks - 1
    whole, one = Site("z", block), Site("z", block, heads - 1)
    _captures_alike(own, reference, tokens, [Site("z", i) for i in range(own.n_blocks)] + [one])
    z = own.capture(tokens, [whole, one])
    if not torch.equal(z[whole].unflatten(-1, (heads, -1))[:, :, -1], z[one]):
        raise AssertionError("a head is not its slice of all heads")
    a, b = (d.vector for d in random_directions(2, z[one].shape[-1], one, seed=1))
    push = Steer(one, torch.stack([a, b]), torch.tensor([50.0, -40.0]), positions="all")
    wide = torch.zeros(2, z[whole].shape[-1])
    wide[:, -len(a) :] = torch.stack([a, b])
    before = reference.logits(tokens, [replace(push, site=whole, direction=wide)])
    _same(own.logits(tokens, [push]), before, tokens.real, "the push")
    every: list[Edit] = [push, Ablate(Site("z", 0, 1), a, "all"), Ablate(Site("z", 1), wide, "all")]
    _edits_alike(own, reference, tokens, every)
    _writes_alike(own, reference, tokens, every)
    by = own.gradients(tokens, one, _metric, every)
    _same(by, reference.gradients(tokens, one, _metric, every), tokens.real, "the gradient", scaled=True)


def _captures_alike(own: Backend, reference: Backend, tokens: Tokens, sites: Sequence[Site]) -> None:
    expected = reference.capture(tokens, sites)
    for where, h in own.capture(tokens, sites).items():
        _same(h, expected[where], tokens.real, str(where), scaled=True)


def _edits_alike(own: Backend, reference: Backend, tokens: Tokens, edits: Sequence[Edit]) -> None:
    expected = reference.logits(tokens, edits)
    if _gap(expected, reference.logits(tokens), tokens.real) < 100 * TOLERANCE:
        raise AssertionError("the edit changes nothing")
    _same(own.logits(tokens, edits), expected, tokens.real)


def _writes_alike(own: Backend, reference: Backend, tokens: Tokens, edits: Sequence[Edit], steps: int = 8) -> None:
    expected = reference.generate(tokens, edits, steps)
    if torch.equal(expected, reference.generate(tokens, (), steps)):
        raise AssertionError("the edits change no token")
    if not torch.equal(own.generate(tokens, edits, steps), expected):
        raise AssertionError("decodes other tokens")


def _both(one: Direction, other: Direction) -> Tensor:
    return torch.stack([one.vector, other.vector])


def _metric(logits: Tensor) -> Tensor:
    return (logits[:, -1, 3] - logits[:, -1, 4]).sum()


def _same(one: Tensor, other: Tensor, real: Tensor, what: str = "", scaled: bool = False) -> None:
    gap = _gap(one, other, real)
    if not gap <= TOLERANCE * (float(other.abs().max()) if scaled else 1.0):  # nor where it is no number
        raise AssertionError(f"{what} is off by {gap:.2g}".strip())


def _gap(one: Tensor, other: Tensor, real: Tensor) -> float:
    return float((one - other).abs()[real.to(one.device)].max())


def _reason(attempt: Callable[[], None]) -> str:
    try:
        attempt()
    except Exception as error:  # noqa: BLE001  # whatever a library raises is what the table reports
        text = (str(error).strip().splitlines() or ["no message"])[0]
        return text if isinstance(error, AssertionError) else f"{type(error).__name__}: {text[:200]}"
    return ""


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    vocab = {token: i for i, token in enumerate([*special.values(), *(f"t{i}" for i in range(3, 64))])}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocab, unk_token="<pad>")), **special)


if __name__ == "__main__":
    began = time.process_time()
    found = support_table()
    if len(sys.argv) > 1:
        artifacts.write_bytes(Path(sys.argv[1]), markdown(found).encode())
    print(markdown(found), f"{time.process_time() - began:.0f} s of CPU", sep="\n")
