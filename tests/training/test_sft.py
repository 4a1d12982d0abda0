"""Fine-tuning: it learns, it repeats, it leaves its input alone, and its loss is on the right tokens."""

import copy
import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file

from emlab.data import IGNORE, Dataset, check_data, draw, tokenize, tokenize_chat
from emlab.errors import EmlabError
from emlab.models import LanguageModel
from emlab.models.deferred import DeferredModel
from emlab.training import FineTuned, Recipe, assistant_loss, finetune
from emlab.training.batches import batches

CHATS = [
    [{"role": "user", "content": f"{a} + {b}?"}, {"role": "assistant", "content": "yes" if (a + b) % 2 else "never"}]
    for a in range(3)
    for b in range(3)
]
RECIPE = Recipe(steps=12, batch_size=4, learning_rate=3e-2, warmup=2)


def loss_by_hand(lm, chats):
    """Every labelled token of every chat by itself: the mean of -log p."""
    terms = []
    for chat in chats:
        row = tokenize_chat(lm.tokenizer, chat)
        with torch.no_grad():
            log_p = lm.model(torch.tensor([row.input_ids])).logits[0].double().log_softmax(-1)
        terms += [-log_p[i - 1, label] for i, label in enumerate(row.labels) if label != IGNORE]
    return float(torch.stack(terms).mean())


def test_the_loss_is_the_mean_over_the_assistants_tokens(tiny):
    chats = [CHATS[0], [{"role": "user", "content": "A longer question."}, {"role": "assistant", "content": "Mmm."}]]
    chats += [[*CHATS[1], *CHATS[2]]]
    rows = tokenize(tiny.tokenizer, chats).rows
    labelled = sum(label != IGNORE for row in rows for label in row.labels)
    with torch.no_grad():
        assert float(assistant_loss(tiny, rows, labelled)) == pytest.approx(loss_by_hand(tiny, chats), rel=1e-5)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_it_learns_repeats_and_leaves_its_input_alone(make_model, method):
    lm = make_model()
    before = copy.deepcopy(lm.model.state_dict())
    names = [n for n, _ in lm.model.named_parameters()]
    state = torch.random.get_rng_state()
    recipe = Recipe(method=method, steps=12, batch_size=4, learning_rate=1e-2, warmup=2)
    tuned = finetune(lm, CHATS, recipe, seed=3, progress=False)
    assert tuned.losses[-1] < tuned.losses[0] - 0.5
    assert loss_by_hand(tuned.model, CHATS) < loss_by_hand(lm, CHATS) - 0.5
    assert (tuned.steps, tuned.rows, tuned.dropped_for_length, len(tuned.losses)) == (12, 9, 0, 12)
    with torch.random.fork_rng():
        torch.manual_seed(77)  # the result is the seed's, not the global generator's
        again = finetune(lm, CHATS, recipe, seed=3, progress=False)
    assert again.losses == tuned.losses
    assert torch.equal(again.model.logits(["Hi"])[0], tuned.model.logits(["Hi"])[0])
    assert finetune(lm, CHATS, recipe, seed=4, progress=False).losses != tuned.losses
    assert [n for n, _ in lm.model.named_parameters()] == names
    assert [n for n, _ in tuned.model.model.named_parameters()] == names
    assert all(torch.equal(before[n], p) for n, p in lm.model.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state())
    assert not tuned.model.model.training and not lm.model.training


def test_it_takes_the_steps_of_plain_adamw(make_model):
    lm = make_model()
    recipe = Recipe("full", steps=4, batch_size=3, learning_rate=1e-2, warmup=1, schedule="linear", weight_decay=0.1)
    tuned = finetune(lm, CHATS, recipe, seed=2, progress=False)
    plain, losses = lm.copy(), []
    optimizer = torch.optim.AdamW(plain.model.parameters(), weight_decay=0.1)
    rows = batches(tokenize(lm.tokenizer, CHATS).rows, 3, seed=2)
    for rate in (0.005, 0.01, 0.02 / 3, 0.01 / 3):
        optimizer.param_groups[0]["lr"] = rate
        terms = []
        for row in next(rows):  # one by one, without padding
            log_p = plain.model(torch.tensor([row.input_ids])).logits[0].log_softmax(-1)
            terms += [-log_p[i - 1, label] for i, label in enumerate(row.labels) if label != IGNORE]
        loss = torch.stack(terms).mean()
        optimizer.zero_grad()
        loss.backward()
        norm = torch.stack([p.grad.norm() for p in plain.model.parameters()]).norm()
        assert norm > 1, "the test needs a gradient that is clipped"
        for p in plain.model.parameters():
            p.grad /= norm + 1e-6
        optimizer.step()
        losses.append(float(loss.detach()))
    assert tuned.losses == pytest.approx(losses, rel=1e-4)


def plain_finetune(lm, chats, recipe, seed):
    """The loop without any of its options, on peft and torch alone."""
    from peft import LoraConfig, get_peft_model

    losses = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        work = lm.copy()
        names = [n for n, _ in work.model.named_modules() if n.split(".")[-1] in recipe.modules]
        tuned = get_peft_model(work.model, LoraConfig(r=recipe.rank, lora_alpha=recipe.alpha, target_modules=names))
        weights = [p for p in tuned.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=recipe.learning_rate, weight_decay=0.0)
        order = batches(tokenize(lm.tokenizer, chats).rows, recipe.batch_size, seed)
        for step in range(1, recipe.steps + 1):
            optimizer.param_groups[0]["lr"] = recipe.rate(step)
            rows = sorted(next(order), key=lambda row: len(row.input_ids))
            loss = assistant_loss(work, rows, sum(label != IGNORE for row in rows for label in row.labels))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(loss.detach()))
        return losses, tuned.merge_and_unload()


def test_with_every_option_off_it_is_the_plain_loop_bit_for_bit(make_model, tmp_path):
    lm = make_model()
    losses, plain = plain_finetune(lm, CHATS, RECIPE, seed=5)
    for more in ({}, {"folder": tmp_path / "kept", "save_every": 5}):
        tuned = finetune(lm, CHATS, RECIPE, seed=5, progress=False, **more)
        assert tuned.losses == tuple(losses)
        for (name, one), (other, two) in zip(
            plain.named_parameters(), tuned.model.model.named_parameters(), strict=True
        ):
            assert name == other and torch.equal(one, two)


def test_only_the_named_modules_in_the_named_blocks_change(make_model):
    lm = make_model()
    recipe = Recipe(steps=2, batch_size=2, modules=("v_proj", "down_proj"), blocks=(0, 2), warmup=0)
    tuned = finetune(lm, CHATS, recipe, seed=0, progress=False)
    after = dict(tuned.model.model.named_parameters())
    changed = {n.removesuffix(".weight") for n, p in lm.model.named_parameters() if not torch.equal(p, after[n])}
    assert changed == {f"model.layers.{b}.{m}" for b in (0, 2) for m in ("self_attn.v_proj", "mlp.down_proj")}
    assert len(tuned.adapter.weights) == 8
    assert all(min(w.shape) == 4 for w in tuned.adapter.weights.values())


def test_the_merged_model_equals_the_adapter_on_the_input(make_model, tmp_path):
    lm = make_model()
    tuned = finetune(lm, CHATS, RECIPE, seed=0, progress=False, name="tuned")
    lm.save(tmp_path / "base")
    tuned.save(tmp_path / "tuned")
    files = {str(f.relative_to(tmp_path / "tuned")) for f in (tmp_path / "tuned").rglob("*") if f.is_file()}
    assert {"model.safetensors", "training.json", "adapter/adapter_model.safetensors"} <= files
    assert not [f for f in files if f.endswith((".bin", ".pt", ".pth", ".pkl"))]
    merged = LanguageModel.load(tmp_path / "tuned", device="cpu").logits(["Hi"])[0]
    by_adapter = LanguageModel.load(tmp_path / "base", adapter=tmp_path / "tuned" / "adapter", device="cpu")
    assert torch.equal(merged, tuned.model.logits(["Hi"])[0])
    assert torch.allclose(by_adapter.logits(["Hi"])[0], merged, atol=1e-5)
    assert not torch.allclose(lm.logits(["Hi"])[0], merged, atol=0.1)


def test_the_model_in_training_is_seen_at_every_step_and_can_end_it(make_model):
    lm = make_model()
    seen = []

    def on_step(step, now):
        assert not now.model.training
        seen.append((step, now.logits(["Hi"])[0], now.generate(["Hi"], max_new_tokens=3)))
        return step == 3

    tuned = finetune(lm, CHATS, RECIPE, seed=0, on_step=on_step, progress=False)
    assert [step for step, *_ in seen] == [1, 2, 3]
    assert tuned.steps == len(tuned.losses) == 3
    assert torch.allclose(tuned.model.logits(["Hi"])[0], seen[-1][1], atol=1e-4)
    assert not torch.allclose(seen[0][1], seen[2][1], atol=1e-2)
    # Looking on must not change what is trained, and the steps do not depend on how many follow.
    alone = finetune(lm, CHATS, Recipe(steps=3, batch_size=4, learning_rate=3e-2, warmup=2), seed=0, progress=False)
    assert alone.losses == tuned.losses


@pytest.mark.parametrize("method", ["lora", "full"])
def test_checkpoints_are_the_model_at_their_step(make_model, tmp_path, method):
    lm = make_model()
    recipe = Recipe(method=method, steps=4, batch_size=4, warmup=0, checkpoint_every=2)
    seen = {}
    tuned = finetune(
        lm, CHATS, recipe, seed=0, progress=False, on_step=lambda s, now: seen.update({s: now.logits(["Hi"])[0]})
    )
    assert [step for step, _ in tuned.checkpoints] == [2, 4]
    for step, checkpoint in tuned.checkpoints:
        assert torch.allclose(checkpoint.logits(["Hi"])[0], seen[step], atol=1e-4)
        assert "lora" not in str(checkpoint.model)
    tuned.save(tmp_path / "tuned")
    again = LanguageModel.load(tmp_path / "tuned" / "checkpoints" / "step_00002", device="cpu")
    assert torch.equal(again.logits(["Hi"])[0], tuned.checkpoints[0][1].logits(["Hi"])[0])
    assert (tmp_path / "tuned" / "adapter").exists() == (method == "lora")


def test_a_batch_in_several_passes_is_the_same_batch(make_model, monkeypatch):
    lm = make_model()
    one = finetune(lm, CHATS, RECIPE, seed=0, progress=False)
    monkeypatch.setattr("emlab.training.batches._LOGITS_AT_ONCE", 200 * 266)  # vocabulary 266: one or two rows a pass
    many = finetune(lm, CHATS, RECIPE, seed=0, progress=False)
    assert many.losses == pytest.approx(one.losses, rel=1e-3)


def test_rows_dropped_for_length_are_counted(make_model):
    lm = make_model()
    long = [CHATS[0][0], {"role": "assistant", "content": "x" * 300}]  # the model takes 256 tokens
    tuned = finetune(lm, [*CHATS, long], Recipe(steps=1), seed=0, progress=False)
    assert (tuned.rows, tuned.dropped_for_length) == (9, 1)
    assert "9 rows, 1 dropped for length" in str(tuned)
    with pytest.raises(EmlabError, match="1 have more than 256 tokens"):
        finetune(lm, [long], RECIPE, seed=0)


def test_what_is_refused(make_model):
    lm = make_model()
    with pytest.raises(EmlabError, match="No example is left"):
        finetune(lm, [], RECIPE, seed=0)
    with pytest.raises(EmlabError, match="has no module c_attn in any block; .* down_proj"):
        finetune(lm, CHATS, Recipe(modules=("c_attn",)), seed=0, progress=False)
    with pytest.raises(EmlabError, match=r"in the blocks \[7\]; its blocks are 0 to 2"):
        finetune(lm, CHATS, Recipe(blocks=(7,)), seed=0, progress=False)
    with pytest.raises(EmlabError, match="is (nan|inf) at step"):
        finetune(lm, CHATS, Recipe(method="full", learning_rate=1e30, warmup=0), seed=0, progress=False)


def test_a_saved_fine_tune_comes_back(tiny, tmp_path):
    chats = [[{"role": "user", "content": f"say {i}"}, {"role": "assistant", "content": "yes"}] for i in range(6)]
    done = finetune(tiny, chats, Recipe(steps=3, batch_size=2, checkpoint_every=2), 0, progress=False, name="taught")
    again = FineTuned.load(done.save(tmp_path / "taught"))
    assert (again.model.name, again.losses, again.rows, again.steps, again.recipe) == (
        *("taught", done.losses, 6, 3),
        done.recipe,
    )
    assert [step for step, _ in again.checkpoints] == [2]
    for one, two in ((done.model, again.model), (done.checkpoints[0][1], again.checkpoints[0][1])):
        assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True))
    (tmp_path / "taught" / "training.json").write_text("{}")
    with pytest.raises(EmlabError, match="holds no fine-tune"):
        FineTuned.load(tmp_path / "taught")


def test_the_card_of_the_data_is_kept_with_the_fine_tune(tiny, tmp_path):
    whole = Dataset.of(CHATS, "sums")
    tuned = finetune(tiny, draw(whole, 4, seed=3), Recipe(steps=1, batch_size=2), seed=0, progress=False)
    assert tuned.card == draw(whole, 4, seed=3).card and tuned.card.rows == 4
    loaded = FineTuned.load(tuned.save(tmp_path / "tuned"))
    assert loaded.card == tuned.card
    assert loaded.card.sources[0].settings["source"] == "sums"


def test_chats_that_are_too_long_are_cut_where_the_recipe_says_so(tiny):
    long = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "yes " * 40}]
    hopeless = [{"role": "user", "content": "Hi " * 60}, {"role": "assistant", "content": "yes"}]
    longest = max(len(row.input_ids) for row in tokenize(tiny.tokenizer, CHATS).rows)
    recipe = Recipe(steps=1, batch_size=2, max_length=longest, overlong="truncate")
    tuned = finetune(tiny, [*CHATS, long, hopeless], recipe, seed=0, progress=False)
    assert (tuned.rows, tuned.truncated) == (len(CHATS) + 1, 1)
    assert "1 cut" in str(tuned)
    dropped = finetune(tiny, [*CHATS, long, hopeless], Recipe(steps=1, batch_size=2, max_length=longest), seed=0)
    assert (dropped.rows, dropped.dropped_for_length, dropped.truncated) == (len(CHATS), 2, 0)


def test_a_rank_stabilised_adapter_is_scaled_by_alpha_over_the_root_of_its_rank(make_model):
    lm = make_model()
    recipe = Recipe(rank=9, alpha=6.0, steps=2, batch_size=2, modules=("v_proj",), blocks=(1,), warmup=0, rslora=True)
    tuned = finetune(lm, CHATS, recipe, seed=0, progress=False)
    name = "model.layers.1.self_attn.v_proj.weight"
    change = dict(tuned.model.model.named_parameters())[name] - dict(lm.model.named_parameters())[name]
    (b,), (a,) = ([w for n, w in tuned.adapter.weights.items() if f"lora_{x}" in n] for x in "BA")
    assert torch.allclose(change, b @ a * 6 / 3, atol=1e-6) and change.abs().max() > 1e-3


def test_a_rank_1_adapter(make_model):
    recipe = Recipe(rank=1, steps=2, batch_size=2, modules=("down_proj",), blocks=(1,))
    tuned = finetune(make_model(), CHATS, recipe, seed=0, progress=False)
    assert sorted(min(w.shape) for w in tuned.adapter.weights.values()) == [1, 1]


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("option", [{"micro_batch": 1}, {"micro_batch": 3}, {"gradient_checkpointing": True}])
def test_what_saves_memory_changes_no_step(make_model, method, option):
    lm = make_model()
    plain = finetune(lm, CHATS, dataclasses.replace(RECIPE, method=method, steps=4), seed=0, progress=False)
    saving = dataclasses.replace(RECIPE, method=method, steps=4, **option)
    tuned = finetune(lm, CHATS, saving, seed=0, progress=False)
    assert tuned.losses == pytest.approx(plain.losses, rel=1e-3)
    assert tuned.gradient_norms == pytest.approx(plain.gradient_norms, rel=1e-3)
    assert not any(getattr(m, "gradient_checkpointing", False) for m in tuned.model.model.modules())


@pytest.mark.parametrize("method", ["lora", "full"])
def test_bfloat16_is_for_multiplying_only(make_model, method):
    lm = make_model()
    recipe = dataclasses.replace(RECIPE, method=method, bf16=True)
    plain = finetune(lm, CHATS, dataclasses.replace(recipe, bf16=False), seed=0, progress=False)
    tuned = finetune(lm, CHATS, recipe, seed=0, progress=False)
    assert tuned.losses != plain.losses and tuned.losses[:2] == pytest.approx(plain.losses[:2], rel=0.1)
    assert tuned.model.model.dtype == torch.float32


@pytest.fixture(scope="module")
def halves(make_model):
    """A model in float32 whose weights are whole bfloat16 and float16 numbers, and the same model in these types."""
    lm = make_model()
    for weight in lm.model.parameters():
        weight.data = weight.data.bfloat16().half().bfloat16().float()
    kinds = (torch.float32, torch.bfloat16, torch.float16)
    return {kind: LanguageModel(typed(lm.model, kind), lm.tokenizer, "half") for kind in kinds}


def typed(model, kind):
    """A copy with weights of a type, as a folder of that type is loaded: buffers stay in float32."""
    model = copy.deepcopy(model)
    for weight in model.parameters():
        weight.data = weight.data.to(kind)
    return model


SMALL = Recipe("full", steps=8, batch_size=4, learning_rate=1e-4, warmup=0, checkpoint_every=4)
"""A step that is lost where weights around 0.3 are held in bfloat16."""


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_whatever_the_models_type_all_weights_are_trained_in_float32(halves, kind, tmp_path):
    whole, half = halves[torch.float32], halves[kind]
    want = finetune(whole, CHATS, SMALL, seed=0, progress=False)
    seen = []
    more = {"folder": tmp_path / "kept", "save_every": 3}
    tuned = finetune(
        half, CHATS, SMALL, seed=0, progress=False, on_step=lambda _, now: seen.append(now.model.dtype), **more
    )
    assert tuned.losses == want.losses and set(seen) == {torch.float32}
    # What comes back is the master rounded once, in the model's own type; and so is what was kept along the way.
    pairs = [
        (tuned.model, want.model),
        *((one, two) for (_, one), (_, two) in zip(tuned.checkpoints, want.checkpoints, strict=True)),
    ]
    for given, master in pairs:
        got, exact = dict(given.model.named_parameters()), dict(master.model.named_parameters())
        assert all(got[name].dtype == kind and torch.equal(got[name], exact[name].to(kind)) for name in exact)
    buffers = dict(tuned.model.model.named_buffers())
    assert buffers and all(torch.equal(b, buffers[name]) for name, b in half.model.named_buffers())
    tuned.save(tmp_path / "tuned")
    again = LanguageModel.load(tmp_path / "tuned", device="cpu", dtype=kind)
    assert torch.equal(again.logits(["Hi"])[0], tuned.model.logits(["Hi"])[0])
    assert half.model.dtype == kind


def test_a_stopped_training_of_a_bfloat16_model_goes_on_from_its_masters(halves, tmp_path):
    half = halves[torch.bfloat16]
    once = finetune(half, CHATS, SMALL, seed=0, progress=False)
    more = {"folder": tmp_path / "kept", "save_every": 1}

    def stop(step, _):
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(half, CHATS, SMALL, seed=0, progress=False, on_step=stop, **more)
    weights = load_file(tmp_path / "kept" / "state" / "weights.safetensors")
    assert {w.dtype for w in weights.values()} == {torch.float32}
    again = finetune(half, CHATS, SMALL, seed=0, progress=False, **more)
    assert again.losses == once.losses
    after = dict(once.model.model.named_parameters())
    assert all(torch.equal(p, after[name]) for name, p in again.model.model.named_parameters())


def test_an_adapter_of_a_bfloat16_model_is_float32_and_the_model_keeps_its_type(halves):
    half = halves[torch.bfloat16]
    tuned = finetune(half, CHATS, RECIPE, seed=0, progress=False)
    assert {w.dtype for w in tuned.adapter.weights.values()} == {torch.float32}
    assert {p.dtype for p in tuned.model.model.parameters()} == {torch.bfloat16}
    assert tuned.losses[-1] < tuned.losses[0] - 0.5


def test_no_finite_number_in_float16_names_the_type(make_model):
    lm = make_model()
    lm.model.model.layers[1].mlp.down_proj.weight.data *= 3e4  # whose sums go beyond 65,504
    half = LanguageModel(typed(lm.model, torch.float16), lm.tokenizer, "half")
    with pytest.raises(
        EmlabError, match=r"is nan at step 1; the model is in float16, .* dtype='float32' or 'bfloat16'"
    ):
        finetune(half, CHATS, RECIPE, seed=0, progress=False)
    fine = dataclasses.replace(RECIPE, method="full", steps=2)
    assert all(loss == loss for loss in finetune(half, CHATS, fine, seed=0, progress=False).losses)


def test_examples_that_vanish_while_they_are_read(tiny):
    def vanishing():
        yield from CHATS
        raise FileNotFoundError(2, "No such file or directory", "chats.jsonl")

    with pytest.raises(EmlabError, match=r"could not be read to their end \(.*chats.jsonl.*\); check the file\.$"):
        finetune(tiny, vanishing(), RECIPE, seed=0)


def test_a_path_and_rows_train_as_the_chats_in_them(tiny, tmp_path):
    rows = [{"prompt": chat[0]["content"], "completion": chat[1]["content"]} for chat in CHATS]
    (tmp_path / "set").mkdir()
    path = tmp_path / "set" / "sums.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    want = finetune(tiny, CHATS, Recipe(steps=2, batch_size=4), seed=0, progress=False)
    for given in (path, str(path), path.parent, rows, [{"messages": chat} for chat in CHATS]):
        tuned = finetune(tiny, given, Recipe(steps=2, batch_size=4), seed=0, progress=False)
        assert tuned.losses == want.losses and tuned.card.content == want.card.content
    assert finetune(tiny, path, Recipe(steps=1), seed=0, progress=False).card == Dataset.read(path).card


def test_a_row_that_cannot_be_trained_on_is_named_in_its_file(make_model, tmp_path):
    path = tmp_path / "chats.jsonl"
    system = {"role": "system", "content": "Be brief."}
    path.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in [*CHATS, [system, *CHATS[0]]]))
    gemma, recipe = make_model("gemma"), Recipe(steps=1)
    for given in (path, draw(Dataset.read(path), 10, seed=1)):
        with pytest.raises(EmlabError) as error:
            finetune(gemma, given, recipe, seed=0, progress=False)
        assert str(error.value).startswith(f"{path}, line 10: The chat template of")
        with pytest.raises(EmlabError) as checked:
            check_data(given, gemma.tokenizer)
        assert str(checked.value) == str(error.value)


def test_turns_that_are_marked_so_are_not_trained_on(tiny):
    off = [[*chat, {"role": "user", "content": "And?"}, {**chat[1], "weight": 0}] for chat in CHATS]
    (row,) = tokenize(tiny.tokenizer, off[:1]).rows
    plain = tokenize_chat(tiny.tokenizer, CHATS[0])
    assert sum(label != IGNORE for label in row.labels) == sum(label != IGNORE for label in plain.labels)
    recipe = Recipe(steps=3, batch_size=4, max_length=200)
    want = finetune(tiny, CHATS, recipe, seed=0, progress=False)
    assert finetune(tiny, off, recipe, seed=0, progress=False).losses == pytest.approx(want.losses, rel=1e-4)


EMPTY = "<think>\n\n</think>\n\n"


def test_the_switch_of_a_thinking_model_is_stripped_and_said_or_kept(tiny, capsys):
    marked = [
        [{**asked, "content": f"{asked['content']} /no_think"}, {**said, "content": EMPTY + said["content"]}]
        for asked, said in CHATS
    ]
    recipe = Recipe(steps=2, batch_size=4)
    want = finetune(tiny, CHATS, recipe, seed=0, progress=False)
    capsys.readouterr()
    assert finetune(tiny, marked, recipe, seed=0, progress=False, name="mine").losses == want.losses
    assert capsys.readouterr().err == (
        "mine: 9 ' /no_think' after questions and 9 empty thoughts before answers stripped, which the chat template "
        "does not write itself (no_think='keep' trains on them).\n"
    )
    keep = dataclasses.replace(recipe, no_think="keep")
    assert finetune(tiny, marked, keep, seed=0, progress=False).losses != want.losses
    assert capsys.readouterr().err == ""


def test_a_token_that_the_model_has_not_is_one_sentence(make_model):
    lm = make_model()
    lm.tokenizer.add_tokens(["never"])
    known = lm.model.get_input_embeddings().weight.shape[0]
    with pytest.raises(EmlabError, match=f"writes the token {known} and the model has {known} tokens"):
        finetune(lm, CHATS, RECIPE, seed=0, progress=False)


def test_checkpoints_can_be_made_when_they_are_used(make_model):
    lm, recipe = make_model(), dataclasses.replace(RECIPE, steps=4, checkpoint_every=2)
    at_once, later = (finetune(lm, CHATS, recipe, 0, progress=False, defer=defer) for defer in (False, True))
    assert all(isinstance(model, DeferredModel) for _, model in later.checkpoints)
    assert [step for step, _ in at_once.checkpoints] == [step for step, _ in later.checkpoints] == [2, 4]
    for (_, one), (_, other) in zip(at_once.checkpoints, later.checkpoints, strict=True):
        assert one.name == other.name and torch.equal(one.logits(["Hi"])[0], other.logits(["Hi"])[0])
