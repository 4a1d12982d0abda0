"""The fast TopK architecture against SAELens' own, from the same weights and on the same batches."""

import itertools

import pytest
import torch
from sae_lens import SAE
from sae_lens.config import SAETrainerConfig
from sae_lens.registry import get_sae_training_class
from sae_lens.saes.sae import TrainStepInput
from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.synthetic import ActivationGenerator, FeatureDictionary
from sae_lens.training.sae_trainer import SAETrainer

from emlab.saes import fast_topk
from emlab.saes.fast_topk import FastTopKTrainingSAE, FastTopKTrainingSAEConfig, fast_trainer

D, M, K, BATCH = 24, 160, 4, 64
FAST, PLAIN = (FastTopKTrainingSAE, FastTopKTrainingSAEConfig), (TopKTrainingSAE, TopKTrainingSAEConfig)


@pytest.fixture(autouse=True, scope="module")
def registered():
    fast_topk.register()


def batches(number=40, seed=0, width=D, features=48):
    """Batches (BATCH, width) of sparse mixtures of unit vectors, and those vectors."""
    torch.manual_seed(seed)
    dictionary = FeatureDictionary(features, width).eval()
    sparse = ActivationGenerator(features, firing_probabilities=0.06, std_firing_magnitudes=0.2)
    with torch.no_grad():
        found = [dictionary(sparse.sample(BATCH)) for _ in range(number)]
    return found, torch.nn.functional.normalize(dictionary.feature_vectors.detach(), dim=1)


def new_sae(kind, seed=0, **options):
    torch.manual_seed(seed)
    sae_class, config_class = kind
    return sae_class(config_class(**{"d_in": D, "d_sae": M, "k": K, **options}))


def new_trainer(kind, data, steps=220, sae=None, seed=0, **options):
    trainer_options = {name: options.pop(name) for name in ("autocast", "checkpoint_path") if name in options}
    cfg = SAETrainerConfig(
        total_training_samples=steps * BATCH,
        train_batch_size_samples=BATCH,
        lr=2e-3,
        lr_end=2e-4,
        lr_warm_up_steps=10,
        lr_decay_steps=50,
        dead_feature_window=15,
        n_batches_for_norm_estimate=10,
        **trainer_options,
    )
    sae = sae or new_sae(kind, seed, **options)
    provider = itertools.cycle(data)
    return fast_trainer(sae, cfg, provider) if kind is FAST else SAETrainer(cfg, sae, provider)


def steps(trainer, number, data):
    """Outputs of `number` steps, each reduced to what is compared."""
    for batch in itertools.islice(itertools.cycle(data), number):
        dead = int(trainer.dead_neurons.sum())
        output = trainer.step(batch)
        trainer.n_training_steps += 1
        losses = output.losses
        yield output.loss.item(), losses["mse_loss"].item(), losses["auxiliary_reconstruction_loss"].item(), dead


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rescale_acts_by_decoder_norm": False},
        {"apply_b_dec_to_input": False, "decoder_init_norm": None},
        {"normalize_activations": "layer_norm", "aux_loss_coefficient": 0.5},
        {"normalize_activations": "expected_average_only_in"},
    ],
    ids=str,
)
def test_the_loss_curve_is_that_of_saelens_at_every_step(options):
    data, _ = batches()
    normalized = options.get("normalize_activations") == "layer_norm"
    trainers = [new_trainer(kind, data, **options) for kind in (FAST, PLAIN)]
    for trainer in trainers:
        if normalized:  # SAELens refuses its auxiliary loss here
            trainer.cfg.dead_feature_window = 10_000
        if options.get("normalize_activations") == "expected_average_only_in":
            trainer.activation_scaler.estimate_scaling_factor(D, iter(data), 10)
    ours, theirs = (list(steps(trainer, 220, data)) for trainer in trainers)
    for step, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-6), f"step {step}"
    assert ours[-1][0] < 0.6 * ours[0][0], "it learns"
    if not normalized:
        assert sum(aux > 0 for _, _, aux, _ in ours) > 30, "the auxiliary loss was at work"
        assert max(dead for *_, dead in ours) > D // 2, "more latents died than the auxiliary loss keeps a token"
    fast, plain = trainers
    assert torch.equal(fast.act_freq_scores, plain.act_freq_scores)
    assert torch.equal(fast.n_forward_passes_since_fired, plain.n_forward_passes_since_fired)
    assert fast.n_frac_active_samples == plain.n_frac_active_samples
    for name, value in plain.sae.state_dict().items():
        assert torch.allclose(fast.sae.state_dict()[name], value, atol=1e-3), name


def test_saelens_own_trainer_trains_it_too():
    data, _ = batches()
    ours, theirs = (
        list(steps(SAETrainer(new_trainer(PLAIN, data).cfg, new_sae(kind), iter(data)), 60, data))
        for kind in (FAST, PLAIN)
    )
    assert any(aux > 0 for _, _, aux, _ in ours)
    for one, other in zip(ours, theirs, strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-6)


def test_what_a_step_returns_is_what_saelens_returns():
    data, _ = batches(1)
    dead = torch.zeros(M, dtype=torch.bool)
    dead[:50] = True
    given = TrainStepInput(data[0], {}, dead, 0, False)
    ours, theirs = (new_sae(kind).training_forward_pass(given) for kind in (FAST, PLAIN))
    assert torch.allclose(ours.feature_acts.to_dense(), theirs.feature_acts, atol=1e-6)
    assert torch.allclose(ours.hidden_pre, theirs.hidden_pre, atol=1e-6)
    assert torch.allclose(ours.sae_out, theirs.sae_out, atol=1e-6)
    trainers = [new_trainer(kind, data) for kind in (FAST, PLAIN)]
    logs = [trainer.build_train_step_log_dict(trainer.step(data[0]), BATCH) for trainer in trainers]
    assert logs[0] == pytest.approx(logs[1], rel=1e-4)


def test_the_auxiliary_loss_is_refused_where_saelens_refuses_it():
    data, _ = batches(1)
    sae = new_sae(FAST, normalize_activations="layer_norm")
    with pytest.raises(ValueError, match="does not support activation normalization"):
        sae.training_forward_pass(TrainStepInput(data[0], {}, torch.ones(M, dtype=torch.bool), 0, False))


def test_hooks_see_what_saelens_gives_them():
    data, _ = batches(1)
    shapes = {}

    def see(value, hook):
        shapes[hook.name] = value.shape

    sae = new_sae(FAST)
    names = ("hook_sae_acts_pre", "hook_sae_acts_post", "hook_sae_recons")
    with sae.hooks(fwd_hooks=[(name, see) for name in names]):
        sae.training_forward_pass(TrainStepInput(data[0], {}, None, 0, False))
    assert shapes == {names[0]: (BATCH, M), names[1]: (BATCH, M), names[2]: (BATCH, D)}


def test_it_is_saved_as_a_plain_topk(tmp_path):
    data, _ = batches()
    trainer = new_trainer(FAST, data, steps=60, normalize_activations="expected_average_only_in")
    trained = trainer.fit()
    assert trained.workspace is None
    trained.save_inference_model(tmp_path / "sae")
    loaded = SAE.load_from_disk(tmp_path / "sae")
    assert loaded.cfg.architecture() == "topk"
    assert loaded.cfg.metadata.training_architecture == "fast_topk"
    assert loaded.W_enc.is_contiguous()
    x = data[0]
    assert torch.allclose(loaded.encode(x), trained.encode(x), atol=1e-4)
    assert torch.allclose(loaded(x), trained(x), atol=1e-4)
    assert torch.allclose(loaded.W_dec.norm(dim=1), torch.ones(M), atol=1e-5)


@pytest.mark.parametrize("begun_by", [FAST, PLAIN], ids=["fast_topk", "topk"])
def test_it_resumes_to_the_same_weights(begun_by, tmp_path):
    data, _ = batches()
    whole = new_trainer(FAST, data)
    list(steps(whole, 80, data))
    first = new_trainer(begun_by, data, checkpoint_path=str(tmp_path))
    list(steps(first, 40, data))
    first.save_checkpoint("half")
    second = new_trainer(FAST, data, seed=9)
    second.sae.load_weights_from_checkpoint(tmp_path / "half")
    second.load_trainer_state(tmp_path / "half")
    assert second.n_training_steps == 40
    list(steps(second, 40, data))
    close = {"rtol": 0, "atol": 0} if begun_by is FAST else {"atol": 1e-4}
    for name, value in whole.sae.state_dict().items():
        assert torch.allclose(second.sae.state_dict()[name], value, **close), name


def test_saelens_goes_on_from_its_checkpoint(tmp_path):
    data, _ = batches()
    whole = new_trainer(PLAIN, data)
    list(steps(whole, 80, data))
    first = new_trainer(FAST, data, checkpoint_path=str(tmp_path))
    list(steps(first, 40, data))
    first.save_checkpoint("half")
    second = new_trainer(PLAIN, data, seed=9)
    second.sae.load_weights_from_checkpoint(tmp_path / "half")
    second.load_trainer_state(tmp_path / "half")
    list(steps(second, 40, data))
    for name, value in whole.sae.state_dict().items():
        assert torch.allclose(second.sae.state_dict()[name], value, atol=1e-4), name


def test_a_step_under_autocast_is_close_to_that_of_saelens():
    data, _ = batches(4)
    ours, theirs = (list(steps(new_trainer(kind, data, autocast=True), 20, data)) for kind in (FAST, PLAIN))
    for one, other in zip(ours, theirs, strict=True):
        assert one[1] == pytest.approx(other[1], rel=0.02)  # bfloat16 has three digits


def test_planted_features_are_recovered_no_worse_than_by_saelens():
    """Mean over features of the largest cosine with a decoder row, three seeds."""
    found = {}
    for seed in range(3):
        data, features = batches(100, seed=seed, features=32)
        for name, kind in (("fast", FAST), ("plain", PLAIN)):
            sae = new_trainer(kind, data, steps=400, seed=seed, k=2, d_sae=48).fit()
            rows = torch.nn.functional.normalize(sae.W_dec.detach(), dim=1)
            found[name, seed] = float((features @ rows.T).max(dim=1).values.mean())
    fast, plain = (sum(found[name, seed] for seed in range(3)) / 3 for name in ("fast", "plain"))
    assert fast > 0.9
    assert fast >= plain - 0.01


def test_it_is_registered_once():
    fast_topk.register()
    assert get_sae_training_class("fast_topk") == FAST
    config = FastTopKTrainingSAEConfig(d_in=D, d_sae=M, k=K)
    again = TopKTrainingSAEConfig.from_dict(config.to_dict())
    assert isinstance(again, FastTopKTrainingSAEConfig) and again.k == K
