"""Which SAEs can be had by name: emlab's own, and those of SAELens' list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from emlab import artifacts
from emlab.notebook import Shown
from emlab.shipped import shipped_files


@dataclass(frozen=True, repr=False)
class SaeList(Shown):
    """SAEs by the names that `load_sae` takes; of SAELens' list a release is one row."""

    model: str | None
    """Of whose SAEs; None: of all."""
    shipped: tuple[dict[str, Any], ...]
    """{name, model, site, d_sae}, each."""
    releases: tuple[dict[str, Any], ...]
    """{name, model, saes, first}, each: how many SAEs it has, and the name of the first."""

    def rows(self) -> list[dict[str, Any]]:
        """All of them."""
        return [*self.shipped, *self.releases]

    def summary(self) -> list[dict[str, Any]]:
        """The rows."""
        return self.rows()

    def __str__(self) -> str:
        lines = [f"{one['name']}  {one['model']}, {one['site']}, {one['d_sae']:,} latents" for one in self.shipped]
        if self.model is None:
            models = {one["model"] for one in self.releases}
            lines.append(
                f"SAELens lists {len(self.releases)} releases, of {len(models)} models: emlab sae list --model NAME "
                "shows those of a model."
            )
        else:
            lines += [f"{one['first']}  {one['model']}, {one['saes']} SAEs in the release" for one in self.releases]
        return "\n".join(lines) or f"Neither emlab nor SAELens' list has an SAE of a model like {self.model!r}."


def list_saes(model: str | None = None) -> SaeList:
    """The SAEs that emlab ships and those of SAELens' list.

    Args:
        model: A part of the model's name; None takes all.
    """
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    def meant(name: str) -> bool:
        return model is None or model.lower() in name.lower()

    own = []
    for cfg in sorted((shipped_files() / "sae_checkpoints").glob("*/cfg.json")):
        told = artifacts.read_json(cfg)
        about = told.get("metadata", {})
        row = {"name": f"sae_checkpoints/{cfg.parent.name}", "model": about.get("model_name", "")}
        own.append({**row, "site": about.get("hook_name", ""), "d_sae": told["d_sae"]})
    others = [
        {"name": name, "model": one.model, "saes": len(one.saes_map), "first": f"{name}/{next(iter(one.saes_map), '')}"}
        for name, one in sorted(get_pretrained_saes_directory().items())
    ]
    return SaeList(
        model,
        tuple(one for one in own if meant(one["model"]) or meant(one["name"])),
        tuple(one for one in others if meant(one["model"])),
    )
