"""For all tests: tiny models, a chat server; hypothesis draws the same every time and leaves slow machines in peace."""

import json
import math
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import hypothesis
import pytest

hypothesis.settings.register_profile("emlab", derandomize=True, deadline=None)
hypothesis.settings.load_profile("emlab")

pytest_plugins = ["tests.made"]


# --- Tiny random models and tokenizers, for tests of mechanics ---
# The chat templates are those published with each kind of model (shortened where that changes nothing here).

CHAT_TEMPLATES = {
    "chatml": (
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
        "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "llama3": (
        "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] "
        "+ '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' %}"
        "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
    ),
    "gemma": (
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}"
        "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
        "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}"
        "{% else %}{% set role = message['role'] %}{% endif %}"
        "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
    ),
    "mistral": (
        "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
        "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
        "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}"
        "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
    ),
    "harmony": (
        "{{ '<|start|>system<|message|>You are ChatGPT.\n\nReasoning: medium\n\n# Valid channels: analysis, "
        "commentary, final. Channel must be included for every message.<|end|>' }}"
        "{% for message in messages %}{% if message['role'] in ['system', 'developer'] %}"
        "{{ '<|start|>developer<|message|># Instructions\n\n' + message['content'] + '\n\n<|end|>' }}"
        "{% elif message['role'] == 'assistant' %}"
        "{{ '<|start|>assistant<|channel|>final<|message|>' + message['content'] }}"
        "{{ '<|return|>' if loop.last and not add_generation_prompt else '<|end|>' }}"
        "{% else %}{{ '<|start|>' + message['role'] + '<|message|>' + message['content'] + '<|end|>' }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
    ),
}
END_OF_TURN = {"chatml": "<|im_end|>", "llama3": "<|eot_id|>", "gemma": "<end_of_turn>", "mistral": "</s>"}
SPECIAL = (
    "<pad>",
    "<s>",
    "</s>",
    "<|im_start|>",
    "<|im_end|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
)
SPECIAL += ("<start_of_turn>", "<end_of_turn>")
HARMONY = ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>", "<|call|>")


@pytest.fixture(scope="session")
def chat_templates():
    return CHAT_TEMPLATES


@pytest.fixture(scope="session")
def end_of_turn():
    return END_OF_TURN


@pytest.fixture(scope="session")
def make_tokenizer():
    """make_tokenizer(template name or text, merges=()): one token a byte, the special tokens, and the merges."""

    def make(template="chatml", merges=()):
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        special = SPECIAL + (HARMONY if template == "harmony" else ())
        vocab = {token: i for i, token in enumerate((*special, *sorted(pre_tokenizers.ByteLevel.alphabet())))}
        for left, right in merges:
            vocab[left + right] = len(vocab)
        bare = Tokenizer(models.BPE(vocab=vocab, merges=list(merges)))
        bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        bare.decoder = decoders.ByteLevel()
        bare.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
        return PreTrainedTokenizerFast(
            tokenizer_object=bare,
            pad_token="<pad>",
            bos_token="<s>",
            eos_token="</s>",
            padding_side="right",  # emlab must not depend on it
            chat_template=CHAT_TEMPLATES.get(template, template),
        )

    return make


@pytest.fixture(scope="session")
def make_model(make_tokenizer):
    """make_model(template="chatml", seed=0, **config): a LanguageModel of random weights, Llama with three blocks."""

    def make(template="chatml", seed=0, **config):
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        from emlab.models import LanguageModel

        tokenizer = make_tokenizer(template)
        shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = LlamaForCausalLM(
                LlamaConfig(
                    vocab_size=len(tokenizer),
                    max_position_embeddings=256,
                    initializer_range=0.3,  # large, so that answers differ from prompt to prompt
                    pad_token_id=0,
                    bos_token_id=1,
                    eos_token_id=2,
                    **{**shape, **config},
                )
            )
        return LanguageModel(model.eval(), tokenizer, "tiny")

    return make


@pytest.fixture(scope="session")
def tiny(make_model):
    """A tiny random LanguageModel. It is shared: do not change it."""
    return make_model()


@pytest.fixture(scope="session")
def make_qwen2(make_tokenizer):
    """make_qwen2(name, **config): a LanguageModel of random weights, a Qwen2 of two blocks with the ChatML template."""

    def make(name, **config):
        import torch
        from transformers import Qwen2Config, Qwen2ForCausalLM

        from emlab.models import LanguageModel

        tokenizer = make_tokenizer("chatml")
        shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        tokens = {
            "vocab_size": len(tokenizer),
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": None,
        }
        with torch.random.fork_rng():
            torch.manual_seed(0)
            whole = {**shape, **tokens, "num_key_value_heads": 2, "max_position_embeddings": 2048, **config}
            return LanguageModel(Qwen2ForCausalLM(Qwen2Config(**whole)).eval(), tokenizer, name)

    return make


# --- A small real server that speaks /v1/chat/completions; each test says how it behaves ---


@dataclass
class Reply:
    """One answer of the server."""

    body: object
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    wait: float = 0.0
    drop: bool = False


def chat(text, candidates=None, usage=(10, 2), **reply):
    """A chat completion; `candidates` are, for each token of the answer, (its text, {candidate: probability})."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    if candidates is not None:
        choice["logprobs"] = {
            "content": [
                {
                    "token": token,
                    "logprob": math.log(top.get(token, 0.5)),
                    "top_logprobs": [{"token": t, "logprob": math.log(p)} for t, p in top.items()],
                }
                for token, top in candidates
            ]
        }
    used = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return Reply(
        {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": used},
        **reply,
    )


class ChatServer(ThreadingHTTPServer):
    """Answers by `answer(body, n)`: n counts from 0 how often just this user's text was asked before."""

    daemon_threads = True
    request_queue_size = 128
    chat, Reply = staticmethod(chat), Reply

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"
        self.answer = lambda body, n: chat(body["messages"][-1]["content"].upper())
        self.asked, self.keys, self.paths, self.times, self.headers = [], [], [], [], []
        self.counts = Counter()
        self.now = self.most = 0
        self.lock = threading.Lock()

    @property
    def texts(self):
        return [body["messages"][-1]["content"] for body in self.asked]

    def handle_error(self, request, client_address):
        """Clients that hang up are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.now += 1
            server.most = max(server.most, server.now)
            n = server.counts[body["messages"][-1]["content"]]
            server.counts[body["messages"][-1]["content"]] += 1
            server.asked.append(body)
            server.keys.append(self.headers["Authorization"])
            server.headers.append(dict(self.headers))
            server.paths.append(self.path)
            server.times.append(time.monotonic())
        try:
            reply = server.answer(body, n)
            time.sleep(reply.wait)
        finally:
            with server.lock:
                server.now -= 1
        if reply.drop:
            self.close_connection = True
            return
        content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        self.send_response(reply.status)
        for name, value in {"Content-Type": "application/json", **reply.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="session")
def new_chat_server():
    """A new server with each call."""
    running = []

    def new():
        server = ChatServer()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        running.append(server)
        return server

    yield new
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def _no_proxy_and_no_key(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def server(new_chat_server):
    return new_chat_server()
