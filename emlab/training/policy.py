"""The policy in training: TRL's GRPOTrainer, with sampling, rewards, their log, read-outs and progress around it."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emlab import artifacts
from emlab.errors import EmlabError, install
from emlab.models import LanguageModel
from emlab.models.generation import generate_ids
from emlab.records import restored
from emlab.training.adapters import put_weights, trained_weights
from emlab.training.grpo import REWARDS, Reinforcement, StepRecord
from emlab.training.masters import half_precision, hold_in_float32
from emlab.training.progress import Progress, optimizer_tensors, put_optimizer
from emlab.training.randomness import generators_kept, seed_generators, seed_of_step
from emlab.training.readouts import Reader, ReadOut, Watch
from emlab.training.rewards import Asked, Grader, Reward, rewards_of


class Policy:
    """One training; see `reinforce`."""

    def __init__(
        self,
        model: LanguageModel,
        name: str,
        chats: Sequence[Asked],
        rows: Sequence[list[int]],
        grader: Grader,
        how: Reinforcement,
        adapter: Any | None,
        seed: int,
        watch: Watch | None,
        progress: bool,
    ) -> None:
        self.name, self.chats, self.rows, self.grader, self.how, self.seed = name, chats, rows, grader, how, seed
        self.start, self.adapter, self.progress = model, adapter, progress
        self.work = model.merged(name)
        self.reader = None if watch is None else Reader(watch)
        self.step = 0
        """Steps taken."""
        self.records: list[StepRecord] = []
        self.points: list[ReadOut] = []
        self.folder: Path | None = None
        self.key = ""
        self._kept: dict[int, dict[str, Tensor]] = {}
        self._begun: Progress | None = None
        self._final: dict[str, Tensor] = {}
        self._whole = True
        """Whether the weights are those after `step` steps, and all figures of these steps are there."""

    # ------------------------------------------------------------------------------------------------- what is kept

    def keep_in(self, folder: Path | None, key: str, begun: Progress | None) -> None:
        """Keep progress and the log of rewards in `folder`, and go on from `begun`."""
        self.folder, self.key, self._begun = folder, key, begun
        if begun is not None:
            self.step = begun.step
            self.records = [StepRecord(**raw) for raw in begun.about["records"]]
            self.points = restored(begun.about["points"], list[ReadOut])
            if self.reader is not None:
                self.reader.past = [dict(past) for past in begun.past]
        if folder is None:
            return
        lines = []
        if begun is not None and (folder / REWARDS).is_file():
            # What stands after the last newline is half a line, or nothing.
            lines = (folder / REWARDS).read_text(encoding="utf-8").split("\n")[:-1]
        # What was logged after the last kept step is done again.
        kept = [line for line in lines if json.loads(line)["step"] <= self.step]
        artifacts.write_text(folder / REWARDS, "".join(f"{line}\n" for line in kept))

    def weights(self) -> dict[str, Tensor]:
        """What was trained, on the CPU."""
        return self._final

    def snapshots(self) -> dict[int, dict[str, Tensor]]:
        """The weights after the steps at which the recipe asks for them."""
        if self.folder is None:
            return self._kept
        from safetensors.torch import load_file

        files = sorted((self.folder / "checkpoints").glob("step_*.safetensors"))
        return {int(file.stem[5:]): load_file(file) for file in files if int(file.stem[5:]) <= self.step}

    def _save(self, tuned: Any, optimizer: torch.optim.Optimizer) -> None:
        if self.folder is None:
            return
        past = () if self.reader is None else tuple(self.reader.past)
        about = {"records": self.records, "points": self.points}
        Progress(self.step, trained_weights(tuned), optimizer_tensors(optimizer), past, about).save(
            self.folder, self.key
        )

    def _snapshot(self, tuned: Any) -> None:
        every = self.how.recipe.checkpoint_every
        if not every or self.step % every:
            return
        if self.folder is None:
            self._kept[self.step] = trained_weights(tuned)
            return
        from safetensors.torch import save

        artifacts.write_bytes(
            self.folder / "checkpoints" / f"step_{self.step:05d}.safetensors", save(trained_weights(tuned))
        )

    # ---------------------------------------------------------------------------------------------------- training

    def train(self) -> None:
        """Take the steps that are left."""
        if self._begun is not None and self.step >= self.how.recipe.steps:
            self._final = dict(self._begun.weights)
            return
        with generators_kept(), _quiet(), tempfile.TemporaryDirectory() as scratch:
            trainer, optimizer = self._trainer(scratch)
            tuned = trainer.model
            if self._begun is not None:
                put_weights(tuned, self._begun.weights)
                put_optimizer(optimizer, self._begun.optimizer)
            elif self.reader is not None:
                self._read(tuned, math.nan)
            with self._bar() as bar:
                trainer.add_callback(self._callback(tuned, optimizer, bar))
                try:
                    trainer.train()
                except BaseException:
                    if self._whole:
                        self._save(tuned, optimizer)
                    raise
            self._save(tuned, optimizer)
            self._final = trained_weights(tuned)

    def _trainer(self, scratch: str) -> tuple[Any, torch.optim.Optimizer]:
        """TRL's trainer for the steps that are left, and the optimiser it uses."""
        from datasets import Dataset
        from transformers import PrinterCallback

        trl = _trl()
        how, recipe = self.how, self.how.recipe
        answers = recipe.batch_size * how.samples
        micro = how.micro_batch or answers
        device = self.work.device
        config = trl.GRPOConfig(
            output_dir=scratch,
            seed=self.seed % 2**32,
            max_steps=recipe.steps,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=answers // micro,
            steps_per_generation=answers // micro,
            num_generations=how.samples,
            max_completion_length=how.max_new_tokens,
            temperature=how.temperature,
            # The reference of a fully trained model is set below: TRL would read it from the disk or the Hub.
            beta=how.beta if self.adapter is not None else 0.0,
            loss_type="grpo",
            learning_rate=recipe.learning_rate,
            max_grad_norm=1.0,
            shuffle_dataset=False,
            disable_dropout=True,
            bf16=recipe.bf16 or self.work.model.dtype == torch.bfloat16,
            gradient_checkpointing=False,
            use_cpu=device.type == "cpu",
            logging_strategy="steps",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        if self.adapter is None:
            hold_in_float32(self.work.model)
            self.work.model.requires_grad_(True)
        trainer = trl.GRPOTrainer(
            model=self.work.model,
            reward_funcs=self._reward,
            args=config,
            # A prompt goes through TRL as its number, and its text and tokens stay here.
            train_dataset=Dataset.from_dict({"prompt": [str(i) for i in self._order()]}),
            processing_class=self.work.tokenizer,
            peft_config=self.adapter,
            rollout_func=self._rollout,
        )
        trainer.remove_callback(PrinterCallback)
        if self.adapter is None and how.beta:
            from trl.trainer.utils import add_fused_lm_head

            trainer.beta, trainer.ref_model = how.beta, self.start.copy().model
            add_fused_lm_head(trainer.ref_model, temperature=how.temperature)
        trained = [p for p in trainer.model.parameters() if p.requires_grad]
        trainer.optimizer = torch.optim.AdamW(trained, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        begun = self.step
        trainer.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            trainer.optimizer, lambda taken: recipe.rate(begun + taken + 1) / recipe.learning_rate
        )
        return trainer, trainer.optimizer

    def _order(self) -> list[int]:
        """The prompts of the steps that are left: a fresh order for every pass, none left out."""
        size, steps = self.how.recipe.batch_size, self.how.recipe.steps
        generator = torch.Generator().manual_seed(self.seed)
        order: list[int] = []
        while len(order) < steps * size:
            order += torch.randperm(len(self.rows), generator=generator).tolist()
        return order[self.step * size : steps * size]

    def _rollout(self, prompts: list[str], trainer: Any) -> dict[str, Any]:
        """TRL's hook: an answer to each prompt; a prompt comes as often as answers to it are wanted."""
        rows = [self.rows[int(number)] for number in prompts]
        seed = seed_of_step(self.seed, self.step + 1)
        try:
            ids = generate_ids(self.work, rows, self.how.max_new_tokens, self.how.temperature, seed)
        except IndexError as error:  # a token beyond the vocabulary: probabilities that are no numbers
            raise EmlabError(
                f"{self.name} gives no probabilities after step {self.step}; lower the learning rate."
            ) from error
        return {"prompt_ids": rows, "completion_ids": ids, "logprobs": None}

    def _reward(
        self, prompts: list[str], completions: list[str], completion_ids: list[list[int]], **_: Any
    ) -> list[float | None]:
        """TRL's reward function: the grader's rewards, less what shortness costs; all of it is logged."""
        step = self.step + 1
        asked = [self.chats[int(number)] for number in prompts]
        stops = set(self.work.stop_ids)
        bare = [ids[:-1] if ids[-1] in stops else ids for ids in completion_ids]
        answers = self.work.tokenizer.batch_decode(bare, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        try:
            rewards = rewards_of(self.grader, asked, answers)
        except EmlabError as error:
            kept = f"; the {self.step} steps before are kept in {self.folder}" if self.folder and self.step else ""
            raise EmlabError(f"{str(error).removesuffix('.')}, at step {step}{kept}.") from error
        rewards = [one and self._less_for_shortness(one, len(ids)) for one, ids in zip(rewards, bare, strict=True)]
        self._log(step, asked, answers, bare, rewards)
        return [None if one is None else one.value for one in rewards]

    def _less_for_shortness(self, reward: Reward, tokens: int) -> Reward:
        least = self.how.least_tokens
        if not least:
            return reward
        short = max(0.0, 1 - tokens / least)
        return Reward(reward.value - short, {**reward.parts, "short": short}, reward.said)

    def _log(
        self,
        step: int,
        asked: Sequence[Asked],
        answers: Sequence[str],
        ids: Sequence[list[int]],
        rewards: Sequence[Reward | None],
    ) -> None:
        if self.folder is None:
            return
        lines = []
        for prompt, answer, tokens, one in zip(asked, answers, ids, rewards, strict=True):
            line: dict[str, Any] = {"step": step, "prompt": prompt, "answer": answer, "tokens": len(tokens)}
            line["reward"] = None if one is None else one.value
            if one is not None:
                line |= ({"parts": one.parts} if one.parts else {}) | ({"said": one.said} if one.said else {})
            lines.append(json.dumps(artifacts.plain(line), ensure_ascii=False) + "\n")
        # Appended, not written anew: the log of a long training is large.
        with artifacts.storing(self.folder / REWARDS), open(self.folder / REWARDS, "a", encoding="utf-8") as file:
            file.writelines(lines)

    def _callback(self, tuned: Any, optimizer: torch.optim.Optimizer, bar: Any) -> Any:
        from transformers import TrainerCallback

        policy = self

        class Steps(TrainerCallback):  # type: ignore[misc]
            def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                state.global_step = policy.step

            def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                seed_generators(seed_of_step(policy.seed, policy.step + 1))

            def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                policy._check_gradient(optimizer)
                policy._whole = False

            def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
                if "grad_norm" not in logs:  # the summary at the end
                    return
                policy._after_step(tuned, optimizer, logs)
                bar(policy.records[-1])

        return Steps()

    def _after_step(self, tuned: Any, optimizer: torch.optim.Optimizer, logs: dict[str, Any]) -> None:
        norm = float(logs["grad_norm"])
        self.step += 1
        self.records.append(
            StepRecord(
                step=self.step,
                reward=logs["reward"],
                spread=logs["reward_std"],
                silent=logs["frac_reward_zero_std"],
                tokens=logs["completions/mean_length"],
                entropy=logs["entropy"],
                kl=logs.get("kl"),
                gradient_norm=norm,
            )
        )
        self._snapshot(tuned)
        if self.reader is not None and self.reader.watch.due(self.step):
            self._read(tuned, norm)
        self._whole = True
        if self.step % self.how.save_every == 0:
            self._save(tuned, optimizer)

    def _check_gradient(self, optimizer: torch.optim.Optimizer) -> None:
        """Raise EmlabError, while the weights are still whole, where the gradient is no number."""
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not all(bool(gradient.isfinite().all()) for gradient in gradients):
            half = half_precision(self.start.model) if self.adapter is not None else None
            mend = half or "lower the learning rate"
            raise EmlabError(f"The gradient of {self.name} is not finite at step {self.step + 1}; {mend}.")

    def _read(self, tuned: Any, norm: float) -> None:
        assert self.reader is not None
        training = tuned.training
        tuned.eval()
        self.points.append(self.reader.read(self.step, self.work, trained_weights(tuned), norm))
        tuned.train(training)

    @contextlib.contextmanager
    def _bar(self) -> Iterator[Any]:
        from tqdm import tqdm

        with tqdm(
            total=self.how.recipe.steps,
            initial=self.step,
            desc=self.name,
            unit="step",
            leave=False,
            file=sys.stderr,
            disable=not self.progress,
        ) as bar:

            def show(record: StepRecord) -> None:
                bar.set_postfix(reward=f"{record.reward:.3f}", refresh=False)
                bar.update(1)

            yield show


def _trl() -> Any:
    try:
        import trl
    except ImportError as error:
        raise EmlabError(
            f"Reinforcement learning needs the package trl, which is not installed; run {install('trl')}."
        ) from error
    return trl


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what TRL says of its hook for sampling, which it calls experimental, and of settings made on purpose."""
    level = logging.getLogger("trl").level
    logging.getLogger("trl").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)
            warnings.filterwarnings("ignore", message=".*rollout_func.*")
            yield
    finally:
        logging.getLogger("trl").setLevel(level)
