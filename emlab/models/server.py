"""One model of one OpenAI-compatible server: where it is, its key, what it costs, how it is called."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from emlab.errors import EmlabError

OPENAI = "https://api.openai.com/v1"
OPENAI_KEY = "OPENAI_API_KEY"
"""The variable with the key for OpenAI's own servers; its key is sent to no other unless it is named for that one."""


@dataclass
class Usage:
    """What has been asked so far."""

    calls: int = 0
    """Requests answered."""
    retries: int = 0
    """Requests sent again."""
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True)
class Server:
    """What the calls of an `Endpoint` need of it."""

    model: str
    """The server's name for the model."""
    base_url: str = OPENAI
    """Where the server is, up to and with /v1."""
    key_variable: str | None = None
    """The environment variable that holds the key for this server. None: OPENAI_API_KEY for OpenAI's own servers, and
    for all others no key, so that none goes to a server it was not meant for."""
    concurrency: int = 16
    """Calls under way at a time."""
    timeout: float = 120.0
    """Seconds a call may take."""
    retries: int = 8
    """How often a call is tried again after 408, 409, 429, 5xx, a time-out or a lost connection."""
    pause: float = 0.25
    """Seconds before it is first tried again; each further pause is twice as long, up to 30 s, unless the server says
    how long."""
    price: tuple[float, float] | None = None
    """Dollars for a million tokens in, and out."""
    progress: bool = True
    """Whether to show a bar."""
    revision: str = ""
    """Any label for what the server now has under this name. Stored answers are those of one label: give a new one
    when the server has other weights under the old name, of which emlab cannot know."""
    usage: Usage = field(default_factory=Usage, compare=False)
    """What has been asked so far."""

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise EmlabError(f"With {self.concurrency} calls under way at a time nothing is asked; give 1 or more.")
        check_variable(self.key_variable)

    @property
    def name(self) -> str:
        """What to call it in tables."""
        return self.model

    def identity(self) -> str:
        """The server, the model and, where one was given, its revision."""
        return " ".join([self.base_url, self.model, *([self.revision] if self.revision else [])])

    def dollars(self, read: int, written: int) -> float | None:
        """What so many tokens in and out cost; None where no price was given."""
        return None if self.price is None else (read * self.price[0] + written * self.price[1]) / 1e6

    @property
    def is_openai(self) -> bool:
        """Whether the server is one of OpenAI's own, reached so that nobody can read along."""
        parts = urlsplit(self.base_url)
        return parts.scheme == "https" and f".{parts.hostname}".endswith(".api.openai.com")

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine."""
        return urlsplit(self.base_url).hostname in ("localhost", "127.0.0.1", "::1", "0.0.0.0")

    def key(self) -> str | None:
        """The key, from the environment; None where none is to be sent."""
        variable = self.key_variable or (OPENAI_KEY if self.is_openai else None)
        if variable is None:
            return None
        key = os.environ.get(variable, "").strip()
        if not re.fullmatch("[!-~]*", key):
            raise EmlabError(f"The key in {variable} holds characters that no key has; set it again.")
        if not key:
            raise EmlabError(
                f"The endpoint {self.base_url} needs a key; put it into the environment variable {variable}."
            )
        return key


def check_variable(name: str | None) -> None:
    """EmlabError where `name` is none of an environment variable, such as a key itself, which is then not repeated."""
    if name is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):
        raise EmlabError(
            "A key is given by the name of the environment variable that holds it, in capitals, such as JUDGE_KEY, and "
            "never itself; set the variable and give its name."
        )
