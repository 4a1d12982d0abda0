"""TopK training for SAELens, at a fraction of the time: the architecture `fast_topk`, and its trainer.

The same losses, gradients, dead latents and optimizer as SAELens' own `topk`, computed from the kept latents
(`topk_step`). What is saved for inference is a plain `topk`, which SAELens reads without emlab.

This module subclasses SAELens' classes, so it imports SAELens at its top: import it inside the function that needs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from sae_lens.config import SAETrainerConfig
from sae_lens.registry import SAE_TRAINING_CLASS_REGISTRY, register_sae_training_class
from sae_lens.saes.sae import SAEConfig, TrainStepInput, TrainStepOutput
from sae_lens.saes.topk_sae import TopKSAEConfig, TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.training.optim import get_lr_scheduler
from sae_lens.training.sae_trainer import SAETrainer
from sae_lens.training.types import DataProvider
from torch import Tensor, nn

from emlab.saes.fused_adam import FusedAdam
from emlab.saes.topk_step import TopKRule, Workspace, topk_step

ARCHITECTURE = "fast_topk"


@dataclass
class FastTopKTrainingSAEConfig(TopKTrainingSAEConfig):
    """SAELens' `TopKTrainingSAEConfig`. `use_sparse_activations` changes nothing: the activations are always sparse."""

    @classmethod
    def architecture(cls) -> str:
        return ARCHITECTURE

    def get_inference_config_class(self) -> type[SAEConfig]:
        return TopKSAEConfig


class FastTopKTrainingSAE(TopKTrainingSAE):
    """SAELens' `TopKTrainingSAE` with sparse decoding and sparse gradients. `W_enc` is stored transposed."""

    W_enc: nn.Parameter
    workspace: Workspace | None = None
    """Where a trainer has the large arrays of each step written, over those of the step before."""

    def initialize_weights(self) -> None:
        super().initialize_weights()
        self.W_enc = nn.Parameter(self.W_enc.data.T.contiguous().T)

    def process_state_dict_for_saving(self, state_dict: dict[str, Any]) -> None:
        super().process_state_dict_for_saving(state_dict)
        state_dict["W_enc"] = state_dict["W_enc"].contiguous()

    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        """As SAELens': `feature_acts` is a sparse tensor; it and `hidden_pre` are detached.

        Where hooks are attached to the SAE, SAELens' own dense pass runs, so that they see what they expect.
        """
        if any(hook._forward_hooks or hook._backward_hooks for hook in self.hook_dict.values()):
            return super().training_forward_pass(step_input)
        mask = step_input.dead_neuron_mask
        dead = mask.nonzero()[:, 0] if mask is not None and bool(mask.any()) else None
        if dead is not None and self.cfg.normalize_activations in ("constant_norm_rescale", "layer_norm"):
            # SAELens has an error for this, and says why.
            self.calculate_topk_aux_loss(step_input.sae_in, step_input.sae_in, step_input.sae_in, mask)
        x = self.run_time_activation_norm_fn_in(self.reshape_fn_in(step_input.sae_in.to(self.dtype)))
        k_aux = self.cfg.d_in // 2
        step = topk_step(
            x,
            self.W_enc,
            self.b_enc,
            self.W_dec,
            self.b_dec,
            TopKRule(self.cfg.k, k_aux, self.cfg.rescale_acts_by_decoder_norm, self.cfg.apply_b_dec_to_input),
            dead,
            self.workspace,
        )
        sae_out = self.reshape_fn_out(self.run_time_activation_norm_fn_out(step.reconstruction), self.d_head)
        mse_loss = self.mse_loss_fn(sae_out, step_input.sae_in).sum(dim=-1).mean()
        aux_loss = sae_out.new_tensor(0.0)
        if step.auxiliary is not None and dead is not None:
            residual = (step_input.sae_in - sae_out).detach()
            scale = self.cfg.aux_loss_coefficient * min(len(dead) / k_aux, 1.0)
            aux_loss = scale * (step.auxiliary - residual).pow(2).sum(dim=-1).mean()
        return TrainStepOutput(
            sae_in=step_input.sae_in,
            sae_out=sae_out,
            feature_acts=as_sparse(step.activations, step.index, self.cfg.d_sae),
            hidden_pre=step.pre_activations,
            loss=mse_loss + aux_loss,
            losses={"mse_loss": mse_loss, "auxiliary_reconstruction_loss": aux_loss},
        )


def as_sparse(activations: Tensor, index: Tensor, d_sae: int) -> Tensor:
    """The kept `activations` (n, k) of latents `index` (n, k) as a sparse tensor (n, d_sae)."""
    tokens = torch.arange(len(index), device=index.device).repeat_interleave(index.shape[1])
    where = torch.stack([tokens, index.flatten()])
    return torch.sparse_coo_tensor(where, activations.flatten(), (len(index), d_sae), check_invariants=False)


class FastTopKTrainer(SAETrainer[FastTopKTrainingSAE, FastTopKTrainingSAEConfig]):
    """SAELens' `SAETrainer` with a fused Adam, memory that is used again, and firings counted from the kept latents.

    Its checkpoints are SAELens', and it resumes from those that SAELens' trainer wrote of a `topk`.
    """

    def __init__(self, cfg: SAETrainerConfig, sae: FastTopKTrainingSAE, data_provider: DataProvider, **more: Any):
        super().__init__(cfg=cfg, sae=sae, data_provider=data_provider, **more)
        self.optimizer = FusedAdam(sae.parameters(), lr=cfg.lr, betas=(cfg.adam_beta1, cfg.adam_beta2))
        self.lr_scheduler = get_lr_scheduler(
            cfg.lr_scheduler_name,
            lr=cfg.lr,
            optimizer=self.optimizer,
            warm_up_steps=cfg.lr_warm_up_steps,
            decay_steps=cfg.lr_decay_steps,
            training_steps=cfg.total_training_steps,
            lr_end=cfg.lr_end,
            num_cycles=cfg.n_restart_cycles,
        )
        self.workspace = Workspace()

    def _train_step(self, sae: FastTopKTrainingSAE, sae_in: Tensor) -> TrainStepOutput:
        """One step, as SAELens' trainer takes it."""
        sae.train()
        sae.workspace = self.workspace
        try:
            with self.autocast_if_enabled:
                output = sae.training_forward_pass(
                    TrainStepInput(
                        sae_in=sae_in,
                        dead_neuron_mask=self.dead_neurons,
                        coefficients=self.get_coefficients(),
                        n_training_steps=self.n_training_steps,
                        is_logging_step=self._is_logging_step(),
                    )
                )
        finally:
            sae.workspace = None
        self._count_firings(output.feature_acts.detach())
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.lr_scheduler.step()
        for scheduler in self.coefficient_schedulers.values():
            scheduler.step()
        return output

    def _count_firings(self, acts: Tensor) -> None:
        if acts.is_sparse:
            fired = acts._indices()[1][acts._values() > 0]
            counts = torch.bincount(fired, minlength=self.sae.cfg.d_sae)
        else:
            counts = (acts > 0).sum(0)
        self.n_forward_passes_since_fired += 1
        self.n_forward_passes_since_fired[counts > 0] = 0
        self.act_freq_scores += counts
        self.n_frac_active_samples += self.cfg.train_batch_size_samples


def fast_trainer(
    sae: FastTopKTrainingSAE, cfg: SAETrainerConfig, data_provider: DataProvider, **more: Any
) -> FastTopKTrainer:
    """A trainer of `sae`, used as SAELens' `SAETrainer` is: `fit()`, `step(batch)`, checkpoints."""
    return FastTopKTrainer(cfg, sae, data_provider, **more)


def register() -> None:
    """Make `fast_topk` known to SAELens; a second call does nothing."""
    if ARCHITECTURE not in SAE_TRAINING_CLASS_REGISTRY:
        register_sae_training_class(ARCHITECTURE, FastTopKTrainingSAE, FastTopKTrainingSAEConfig)
