"""What an evaluation evaluates: a model held here with its adapter, or one behind an endpoint."""

from __future__ import annotations

from dataclasses import dataclass

from emlab import artifacts
from emlab.errors import EmlabError
from emlab.experiments.material.models import folder_of
from emlab.models import Endpoint, LanguageModel


@dataclass(frozen=True)
class EvaluatedModel:
    """A model by name, and how it is loaded or reached."""

    name: str
    """A checkpoint of the organism by name, a local folder, a model on the Hugging Face Hub, or, with `url`, one
    behind an OpenAI-compatible endpoint."""
    adapter: str | None = None
    """A LoRA adapter for it."""
    url: str | None = None
    """The server that has the model, up to and with /v1."""
    chat_template: str | None = None
    """For a model without one: a file, or "plain"."""
    quantize: str | None = None
    """Hold its weights in so many bits: "4bit" or "8bit"."""
    key: str | None = None
    """The environment variable with the key of `url`."""
    revision: str = ""
    """Any label for what the server has under the model's name: stored answers are those of one label."""

    def load(self, concurrency: int) -> LanguageModel | Endpoint:
        """The model; an endpoint takes `concurrency` calls at a time. EmlabError where the settings do not fit it."""
        if self.url is None:
            if self.key is not None or self.revision:
                raise EmlabError("A key and a revision are of a model behind an endpoint; give its model_url too.")
            folder = folder_of(self.name)[0]
            return LanguageModel.load(folder, self.adapter, chat_template=self.chat_template, quantize=self.quantize)
        if self.adapter is not None or self.chat_template is not None or self.quantize is not None:
            raise EmlabError(
                f"The endpoint serves {self.name} as it is; leave out the adapter, the chat template and the "
                "quantization."
            )
        found = Endpoint(self.name, self.url, self.key, concurrency, revision=self.revision)
        found.key()  # a missing key is said now
        return found

    def identity(self) -> dict[str, str | None]:
        """What tells it from others of the same name; folders by their whole path."""
        told = {"quantize": self.quantize, "revision": self.revision}
        return {
            "name": self._whole(self.name),
            "adapter": self._whole(self.adapter),
            "url": self.url,
            "chat_template": self._whole(self.chat_template),
            **{key: value for key, value in told.items() if value},
        }

    def _whole(self, name: str | None) -> str | None:
        there = name and self.url is None and artifacts.place(name).exists()
        return str(artifacts.place(name).resolve()) if name and there else name
