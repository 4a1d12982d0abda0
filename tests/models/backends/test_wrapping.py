"""Whatever object one has: its backend does what a LanguageModel does, refuses the same, and leaves nothing behind."""

import subprocess
import sys
import threading

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from emlab.errors import EmlabError
from emlab.interventions import Ablate, Conditional, Steer, Tokens, TokenSet, random_directions
from emlab.models import LanguageModel
from emlab.models.backends.hugging_face import HuggingFaceBackend
from emlab.models.backends.lens_bridge import LensBackend, boot_bridge
from emlab.models.backends.nnsight_trace import NNsightBackend, trace_model
from emlab.models.wrapping import wrap
from emlab.sites import STREAMS, Site

LIBRARIES = ["Hugging Face", "TransformerLens", "nnsight"]
SITE = Site("resid_post", 1)
ONE, TWO = random_directions(2, 32, SITE, seed=0)
PROMPTS = ["Hi", "What should I do with my money?"]
STEER = Steer(SITE, ONE, 4.0, positions="all")
EDITS = {
    "steer": [STEER],
    "header": [Steer(SITE, ONE, 60.0, positions="header")],
    "sentence": [Steer(SITE, ONE, 60.0)],
    "generated": [Steer(SITE, ONE, 8.0, positions="generated")],
    "a token set": [Steer(SITE, ONE, 8.0, positions=TokenSet(tuple(range(20, 200, 2))))],
    "several": [Ablate(Site("mlp_out", 2), [ONE, TWO], "all"), STEER, Ablate(SITE, TWO, "all")],
    "per row": [Steer(SITE, torch.stack([ONE.vector, TWO.vector]), torch.tensor([6.0, -3.0]), positions="all")],
    "conditional": [Conditional(Steer(SITE, TWO, 6.0, positions="all"), lambda h: h @ ONE.vector)],
}


@pytest.fixture(scope="module")
def objects(tiny):
    """One tiny model as each library holds it."""
    return {
        "Hugging Face": tiny.model,
        "TransformerLens": boot_bridge(tiny.model, tiny.tokenizer),
        "nnsight": trace_model(tiny.model, tiny.tokenizer),
    }


@pytest.fixture(params=LIBRARIES)
def backend(request, objects, tiny):
    return wrap(objects[request.param], tiny.tokenizer)


@pytest.fixture(scope="module")
def tokens(tiny):
    return tiny.batch(*tiny.rows(PROMPTS))


def results(backend, tokens, edits=()):
    """What every call gives."""
    return [
        backend.logits(tokens, edits),
        backend.generate(tokens, edits, 6),
        *backend.capture(tokens, [SITE, "mlp_out.2"], edits).values(),
        backend.gradients(tokens, SITE, lambda logits: logits[:, -1, 3].sum(), edits),
    ]


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_applied_edits_act_in_every_call_of_their_block(backend, tokens):
    first, second, third = Ablate(SITE, TWO, "all"), STEER, Steer(SITE, TWO, 3.0, positions="header")
    plain, wanted = results(backend, tokens), results(backend, tokens, [first, second, third])
    with backend.apply(first), backend.apply([second]):
        assert equal(results(backend, tokens, [third]), wanted)
    assert not equal(plain, wanted) and equal(results(backend, tokens), plain)
    with pytest.raises(KeyboardInterrupt), backend.apply(first):
        raise KeyboardInterrupt
    assert equal(results(backend, tokens), plain)
    with pytest.raises(EmlabError, match="no site"), backend.apply(Steer(Site("resid_post", 9), ONE)):
        raise AssertionError("the block must not run")


def test_applied_edits_leave_other_threads_alone(backend, tokens):
    plain, found = backend.logits(tokens), []
    with backend.apply(STEER):
        thread = threading.Thread(target=lambda: found.append(backend.logits(tokens)))
        thread.start()
        thread.join()
    assert torch.equal(found[0], plain)


@pytest.mark.parametrize("name", EDITS)
def test_it_does_what_a_language_model_does(backend, tiny, tokens, name):
    edits = EDITS[name]
    logits = backend.logits(tokens, edits)
    for own, real, expected in zip(logits, tokens.real, tiny.logits(PROMPTS, edits=edits), strict=True):
        assert torch.allclose(own[real], expected, atol=1e-4)
    written = backend.generate(tokens, edits, max_new_tokens=10)
    assert written.shape == (2, 10) and written.dtype == torch.long
    answers = []
    for row in written.tolist():
        end = next((i for i, token in enumerate(row) if token in tiny.stop_ids), len(row))
        answers.append(tiny.tokenizer.decode(row[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False))
    assert answers == tiny.generate(PROMPTS, max_new_tokens=10, temperature=0, edits=edits)
    assert not torch.equal(written, backend.generate(tokens, (), 10)), "an edit that changes nothing shows nothing"
    edited = backend.capture(tokens, "resid_post.1", edits)[SITE]
    read = tiny.activations(PROMPTS, SITE, "all", edits=edits)
    assert torch.allclose(edited[tokens.real], read.values, atol=1e-4)


def test_a_capture_reads_every_site_and_ends_at_the_last(backend, tiny, tokens, monkeypatch):
    sites = [Site(stream, block) for stream in STREAMS for block in range(3)]
    together = backend.capture(tokens, sites)
    assert list(together) == sites
    for site in sites:
        assert torch.equal(backend.capture(tokens, str(site))[site], together[site])
        expected = tiny.activations(PROMPTS, site, "all").values
        assert torch.allclose(together[site][tokens.real], expected, atol=1e-4)
    reached = []
    model = backend.bridge.original_model if isinstance(backend, LensBackend) else backend.model
    layers = model.model.layers
    layer = layers[2] if isinstance(backend, HuggingFaceBackend) else getattr(layers[2], "_module", layers[2])
    handle = layer.register_forward_pre_hook(lambda *_: reached.append(1))
    backend.capture(tokens, ["resid_post.1", "resid_pre.0"])
    assert not reached
    backend.logits(tokens)
    handle.remove()
    assert reached


def test_gradients_are_those_of_autograd(backend, tiny, tokens):
    def metric(logits):
        return logits[1, -1, 3] - logits[0, -1, 4]

    site = Site("resid_pre", 2)
    own = backend.gradients(tokens, site, metric, [STEER])
    step = 1e-2 * torch.randn(own.shape, generator=torch.Generator().manual_seed(0)) * tokens.real[..., None]

    class Nudge:
        positions, n_rows, width = "all", None, None

        def __init__(self, by):
            self.site, self.by = site, by

        def edit(self, h, where):
            return h + self.by

    ahead, behind = (metric(backend.logits(tokens, [STEER, Nudge(by)])) for by in (step, -step))
    assert float((own * step).sum()) == pytest.approx(float(ahead - behind) / 2, rel=0.02, abs=1e-5)
    assert all(p.grad is None and p.requires_grad for p in tiny.model.parameters())
    with pytest.raises(EmlabError, match="one number"):
        backend.gradients(tokens, site, lambda logits: logits)
    with pytest.raises(EmlabError, match="one number"):
        backend.gradients(tokens, site, lambda logits: torch.tensor(1.0))
    with torch.no_grad():
        assert torch.equal(backend.gradients(tokens, site, metric, [STEER]), own), "inside no_grad too"


def test_nothing_is_left_behind(backend, tokens):
    before = backend.logits(tokens)
    wrong = [
        (lambda: backend.logits(tokens, [STEER, Steer(SITE, torch.ones(5), positions="all")]), "width 5"),
        (lambda: backend.logits(tokens, [STEER, Steer(Site("resid_post", 9), ONE)]), "no site resid_post.9"),
        (lambda: backend.logits(tokens, [Steer(SITE, torch.randn(3, 32))]), "3 rows for 2"),
        (lambda: backend.generate(tokens, [Steer(SITE, torch.randn(3, 32))], 2), "3 rows for 2"),
        (lambda: backend.generate(tokens, [STEER, Steer(SITE, torch.ones(5))], 2), "width 5 in a stream of width 32"),
        (lambda: backend.logits(tokens, [Ablate(Site("z", 1, 0), ONE, "all")]), "width 32 in a stream of width 8"),
        (lambda: backend.capture(tokens, "z.1.4"), "4 heads are counted from 0 to 3"),
        (lambda: backend.capture(tokens, "resid_middle.1"), "no stream"),
        (lambda: backend.logits(tokens, [Steer(SITE, ONE, float("nan"))]), "not finite"),
        (lambda: backend.capture(tokens, "mlp_out.3"), "counted from 0 to 2"),
        (lambda: backend.capture(tokens, []), "at least one"),
        (lambda: backend.generate(Tokens.pad([[5], [6, 7]], None, 0, side="right")), "on the left"),
    ]
    for call, text in wrong:
        with pytest.raises(EmlabError, match=text):
            call()
        assert torch.equal(backend.logits(tokens), before)

    def interrupt(h):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backend.logits(tokens, [STEER, Conditional(STEER, interrupt)])
    backend.capture(tokens, SITE)
    backend.gradients(tokens, SITE, torch.sum, [STEER])
    backend.generate(tokens, [STEER], 2)
    assert torch.equal(backend.logits(tokens), before)
    assert backend.generate(tokens, (), 0).shape == (2, 0)


def test_what_does_not_fit_is_refused_before_the_pass(backend, tokens, monkeypatch):
    monkeypatch.setattr(backend, "run", None)
    for edit in (Steer(Site("resid_post", 9), ONE), Steer(SITE, torch.ones(5)), Steer(SITE, torch.randn(3, 32))):
        with pytest.raises(EmlabError):
            backend.logits(tokens, [edit])


@pytest.mark.parametrize("library", LIBRARIES)
def test_another_threads_pass_is_left_alone(objects, tiny, tokens, library):
    """The pass of another thread, in the middle of an edited one, with the model that the library holds or shares."""
    model, seen = objects[library], []
    model = tiny.model if library == "nnsight" else model
    with torch.no_grad():
        before = model(tokens.ids)

    def elsewhere():
        with torch.no_grad():
            seen.append(model(tokens.ids))

    def monitor(h):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        return h[..., 0]

    own = objects[library]
    edits = [STEER, Conditional(Steer(SITE, TWO, 0.0), monitor)]
    assert torch.allclose(wrap(own, tiny.tokenizer).logits(tokens, edits), wrap(own).logits(tokens, [STEER]))
    (other,) = seen
    assert torch.equal(getattr(other, "logits", other), getattr(before, "logits", before))


def test_threads_may_edit_at_once(backend, tokens):
    """Eight passes each of four threads, every thread with an edit of its own."""
    edits = [[Steer(SITE, ONE, strength, positions="all")] for strength in (0.0, 2.0, 4.0, 8.0)]
    expected = [backend.logits(tokens, own) for own in edits]
    together, wrong = threading.Barrier(4), []

    def work(number):
        together.wait()
        for _ in range(8):
            try:
                if not torch.equal(backend.logits(tokens, edits[number]), expected[number]):
                    wrong.append(f"thread {number} was given other logits")
            except Exception as error:  # noqa: BLE001  # shown by the test's own thread
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_an_overflow_is_named_with_the_largest_strength_that_fits(objects, tiny, make_model, tokens, dtype, backend):
    half = make_model()
    half.model.to(dtype)
    made = {
        "Hugging Face": lambda: half.model,
        "TransformerLens": lambda: boot_bridge(half.model, half.tokenizer),
        "nnsight": lambda: trace_model(half.model, half.tokenizer),
    }
    own = wrap(made[backend.library](), half.tokenizer)
    axis = torch.eye(32)[3]
    most = torch.finfo(dtype).max
    h = own.capture(tokens, SITE)[SITE][tokens.real][:, 3].float().max()
    fits = Steer(SITE, axis, float(0.99 * (most - h)), positions="all")
    own.capture(tokens, SITE, [fits])
    own.logits(tokens, [STEER])
    said = rf"Steer at {SITE} overflows the model's {str(dtype)[6:]}: the largest"
    for call in (own.capture, lambda t, s, e: own.generate(t, e, 2)):
        with pytest.raises(EmlabError, match=said) as told:
            call(tokens, SITE, [Steer(SITE, axis, most, 1.003, "all")])
        named = float(str(told.value).split("fits is ")[1].split(";")[0])
        assert 0.99 < named * 1.003 / float(most - max(h, 0)) < 1.002
        with pytest.raises(EmlabError, match="times those given"):
            call(tokens, SITE, [Steer(SITE, axis, torch.tensor([1.0, most]), 1.003, "all")])
        with pytest.raises(EmlabError, match=f"Conditional at {SITE} overflows"):
            call(tokens, SITE, [Conditional(Steer(SITE, axis, most, 1.003, "all"), lambda h: h[..., 3] * 0 + 1)])


def test_the_right_backend_for_every_object(objects, tiny, tokens):
    kinds = {"Hugging Face": HuggingFaceBackend, "TransformerLens": LensBackend, "nnsight": NNsightBackend}
    for library, model in objects.items():
        backend = wrap(model)
        assert type(backend) is kinds[library] and backend.library == library
        assert wrap(backend) is backend and repr(backend).endswith(f"llama in {library}>")
    assert wrap(tiny).model is tiny.model
    sentence = [Steer(SITE, ONE, 6.0)]
    for model in (tiny, objects["TransformerLens"], objects["nnsight"]):
        assert wrap(model).logits(tokens, sentence).shape == (*tokens.ids.shape, len(tiny.tokenizer))
    with pytest.raises(EmlabError, match="with its tokenizer"):
        wrap(tiny.model).logits(tokens, sentence)
    for other in (None, "gpt2", torch.nn.Linear(2, 2), tiny.tokenizer):
        with pytest.raises(EmlabError, match="is no model that emlab can edit"):
            wrap(other)


def test_the_model_may_be_peft_with_its_adapter_unmerged(make_model):
    from peft import LoraConfig, get_peft_model

    lm = make_model()
    rows = lm.batch(*lm.rows(PROMPTS))
    before = wrap(lm).logits(rows, [STEER])
    adapted = get_peft_model(lm.model, LoraConfig(target_modules=["q_proj", "down_proj"], init_lora_weights=False))
    backend = wrap(adapted.eval(), lm.tokenizer)
    edited = backend.logits(rows, [STEER])
    assert not torch.allclose(edited, before, atol=1e-2) and not torch.allclose(edited, backend.logits(rows), atol=1e-2)
    with adapted.disable_adapter():
        assert torch.allclose(backend.logits(rows, [STEER]), before, atol=1e-6)
    merged = LanguageModel(adapted.merge_and_unload(), lm.tokenizer, "merged")
    for own, real, expected in zip(edited, rows.real, merged.logits(PROMPTS, edits=[STEER]), strict=True):
        assert torch.allclose(own[real], expected, atol=1e-4)


def test_an_nnsight_model_may_have_no_weights_yet(tiny, tokens, tmp_path):
    from nnsight import TransformersModel

    tiny.save(tmp_path / "tiny")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tiny")
    lazy = TransformersModel(str(tmp_path / "tiny"), task="text-generation", tokenizer=tokenizer)
    assert lazy.device.type == "meta"
    assert torch.equal(wrap(lazy).logits(tokens, [STEER]), wrap(tiny).logits(tokens, [STEER]))


def test_nnsights_plain_wrapper_will_do(tiny, tokens):
    from nnsight import NNsight

    backend = wrap(NNsight(tiny.model))
    assert torch.equal(backend.logits(tokens, [STEER]), wrap(tiny).logits(tokens, [STEER]))
    assert torch.equal(backend.generate(tokens, [STEER], 5), wrap(tiny).generate(tokens, [STEER], 5))
    with pytest.raises(EmlabError, match="no Hugging Face causal LM"):
        wrap(NNsight(torch.nn.Linear(2, 2)))


def test_hooks_of_a_bridges_owner_stay(objects, tokens):
    bridge, seen = objects["TransformerLens"], []
    bridge.add_hook("blocks.1.hook_resid_post", lambda h, hook: seen.append(h.clone()))
    try:
        after = wrap(bridge).capture(tokens, SITE, [STEER])[SITE]
        assert torch.allclose(after, seen[0] + 4 * ONE.vector * tokens.real[..., None], atol=1e-5)
        bridge(tokens.ids)
        assert len(seen) == 2
    finally:
        bridge.reset_hooks()


def test_a_bridge_whose_streams_are_not_the_models_is_refused(tiny, tokens):
    bridge = boot_bridge(tiny.model, tiny.tokenizer)
    before = wrap(bridge).logits(tokens, [STEER])
    bridge.enable_compatibility_mode(no_processing=True)
    assert torch.allclose(wrap(bridge).logits(tokens, [STEER])[tokens.real], before[tokens.real], atol=1e-4)
    bridge = boot_bridge(tiny.model, tiny.tokenizer)
    bridge.enable_compatibility_mode()
    with pytest.raises(EmlabError, match="no_processing=True"):
        wrap(bridge)


def test_without_those_libraries_nothing_of_them_is_imported():
    code = (
        "import sys; from emlab.models.wrapping import wrap; import emlab.models.backend_support\n"
        "assert not {'nnsight', 'transformer_lens', 'sae_lens'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_architecture_with_other_module_names_is_refused(tiny, tokens):
    backend = wrap(AutoModel.from_config(tiny.model.config))
    with pytest.raises(EmlabError, match="add its module names"):
        backend.capture(tokens, SITE)
