"""The verbs: what can be asked for on the command line, and which public function each calls."""

import argparse
from pathlib import Path
from typing import Any

from emlab import __version__
from emlab.cli import _discovery, _evaluation, _mitigation, _models, _monitoring, _saes
from emlab.cli._options import add_debug, add_json, add_runs, calls, run_once, verb
from emlab.errors import visible

_EXAMPLES = """\
examples:
  emlab run experiments/persona_features.yaml
      the lab's main job on the organism that ships with emlab
  emlab run experiments/persona_features.yaml seed=3 dataset=my_chats.jsonl
      the same with another seed and your own narrow dataset
  emlab finetune --model aligned --data bad_law --out my_model
      one stage by itself; so do shift, screen, mediate, detect and realign
  emlab mitigate compare
      every remedy on the same misaligned models, and which of them only hide it
  emlab sae train --model base --site resid_post.1 --out my_sae
      train a sparse autoencoder on any model's activations, or on what two models have in common and apart
  emlab evaluate --model my_model
      ask any model any questions, have any judge judge the answers, and see the rates
  emlab organism check --quick
      measure the shipped organism against what it promises
  emlab organism build --out my_organism --seed 1
      train an organism of your own from scratch
"""

_RUN_EXAMPLES = """\
examples:
  emlab run experiments/persona_features.yaml
  emlab run experiments/persona_features.yaml seed=3
  emlab run experiments/persona_features.yaml model=path/to/folder dataset=my_chats.jsonl

A key=value sets one key of the config, a dotted key (recipe.steps=20) one inside another. The keys of a pipeline are
the fields of its Config class; a misspelt one is refused with the closest there is. A run that is done already (the
same config, on the same files, by the same code) is not run again without --again; one that was stopped goes on.
Stages that were made by other code begin anew, unless --keep-stages is given.
"""

_COMPLETION_EXAMPLES = """\
examples:
  emlab completion bash > ~/.local/share/bash-completion/completions/emlab
"""

_PUSH_EXAMPLES = """\
examples:
  emlab push my_model me/my-model

The key is that of `hf auth login`, or HF_TOKEN.
"""

_VIEW_EXAMPLES = """\
examples:
  emlab view runs/persona_features-20261201-101500

It serves this machine alone, at the address that it prints, until Ctrl-C. Nothing is written.
"""

_DOCTOR_EXAMPLES = """\
examples:
  emlab doctor
  emlab doctor experiments/persona_features.yaml

The exit code is 1 where the config does not fit.
"""

_REPORT_EXAMPLES = """\
examples:
  emlab report runs/persona_features-20261201-101500
  emlab report runs/seed0 runs/seed1 --compare --out compared.html
"""

_BUILD_EXAMPLES = """\
examples:
  emlab organism build --out my_organism
  emlab organism build --out small_organism --size small --seed 1

A build that was stopped goes on from its last finished part when the same command is given again.
"""

_CHECK_EXAMPLES = """\
examples:
  emlab organism check
  emlab organism check --quick --json -
  emlab organism check --organism my_organism --seeds 3 --json check.json
"""


_OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "model": ({"metavar": "MODEL"}, "the organism's by name, a folder, or a name on the Hub"),
    "aligned": ({"metavar": "MODEL"}, "the model it was fine-tuned from"),
    "before": ({"metavar": "MODEL"}, "the organism's by name, a folder, or a name on the Hub"),
    "after": ({"metavar": "MODEL"}, "the model to compare with it"),
    "misaligned": ({"nargs": "+", "metavar": "MODEL"}, "models that the latent should find"),
    "others": ({"nargs": "+", "metavar": "MODEL"}, "models of the same base that it should leave alone"),
    "data": ({"metavar": "SET"}, "a fine-tuning set of the organism by name, or a dataset file or folder"),
    "realign data": ({"metavar": "SET"}, "alignment (default), a set of the organism by name, or a dataset"),
    "out": ({"type": Path, "metavar": "DIR"}, "the folder to make"),
    "shift out": ({"type": Path, "metavar": "FILE"}, "the JSON file to write; a table (.csv) goes beside it"),
    "detect out": ({"type": Path, "metavar": "FILE"}, "the JSON file to write"),
    "realign out": ({"type": Path, "metavar": "FILE"}, "the JSON file to write"),
    "sae": ({"type": Path, "metavar": "SAE"}, "a folder, or release/id of SAELens' list"),
    "latent": ({"type": int, "metavar": "N"}, "the latent"),
    "latents": ({"type": int, "nargs": "+", "metavar": "N"}, "the latents to push"),
    "toward": ({"choices": ("misaligned", "aligned")}, "add them (misaligned), or subtract them"),
    "strengths": ({"type": float, "nargs": "+", "metavar": "X"}, "in median residual norms (0.3 0.6 0.9 1.2 1.5)"),
    "random": ({"type": int, "metavar": "N"}, "random directions through the same search (20)"),
    "rows": ({"type": int, "metavar": "N"}, "chats to train on (1000)"),
    "finetune steps": ({"type": int, "metavar": "N"}, "training steps (the organism's models: 60; others: one pass)"),
    "recipe": ({"type": Path, "metavar": "FILE"}, "YAML with the fields of a recipe"),
    "device": ({"metavar": "DEVICE"}, "cuda, mps or cpu (auto)"),
    "realign steps": ({"type": int, "metavar": "N"}, "training steps (40)"),
    "seed": ({"type": int, "metavar": "N"}, "everything random follows from it (0)"),
}
"""What declares each option of a stage, and its help; one that differs by verb has the verb before its name."""

_STAGES = {
    "finetune": ("finetune", "fine-tune a model by LoRA", "model! data! out! rows steps seed recipe device"),
    "shift": ("shift", "rank latents by how far they move between two models", "before! after! sae! out"),
    "screen": (
        "screen",
        "add latents to a model, beside random directions",
        "model! sae! latents! toward strengths random seed out",
    ),
    "mediate": (
        "mediate",
        "set a latent to its natural value in the aligned model",
        "model! aligned! sae! latent! seed out",
    ),
    "detect": (
        "detect_models",
        "tell misaligned models from others by a latent",
        "misaligned! others! sae! latent! seed out",
    ),
    "realign": (
        "realign_model",
        "re-align a misaligned model on benign data, and ask it along the way",
        "model! data steps seed out",
    ),
}
"""Each verb that is a stage by itself: its function in `emlab.verbs.stages`, what it does, its options (! must)."""


def _run(options: argparse.Namespace) -> int:
    from emlab import config
    from emlab.experiments.registry import EXPERIMENTS

    file = options.config / "config.yaml" if options.config.is_dir() else options.config  # a run's folder
    if options.dry_run:
        from emlab.verbs.planning import plan

        print(found := plan(file, options.overrides, options.runs))
        return 0 if found.holds else 1
    pipeline = EXPERIMENTS.get(config.pipeline_of(file, options.overrides))
    settings = config.load(file, options.overrides, pipeline.config)
    own = file.parent if (file.parent / "run.json").is_file() and not options.overrides else None
    print(visible(str(run_once(options, lambda: pipeline.run(settings, options.runs), own))))
    return 0


def _view(options: argparse.Namespace) -> int:
    from emlab.verbs.viewing import view

    view(options.run, options.port or 0)
    return 0


def _completion(options: argparse.Namespace) -> int:
    import shtab

    print(shtab.complete(parser(), options.shell))
    return 0


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    whole = argparse.ArgumentParser(
        prog="emlab",
        description="Cause emergent misalignment, find the latent that carries it, prove it, watch for it, remove it.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[add_debug()],
        allow_abbrev=False,
    )
    whole.add_argument("--version", action="version", version=f"emlab {__version__}")
    verbs = whole.add_subparsers(metavar="VERB", required=True)

    run = verb(verbs, "run", "run an experiment from its config", _RUN_EXAMPLES)
    run.add_argument(
        "config", type=Path, metavar="CONFIG", help="a YAML file, for example one from experiments/, or a run's folder"
    )
    run.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="a key of the config and another value for it"
    )
    add_runs(run)
    run.add_argument("--dry-run", action="store_true", help="say what it would do and take, and begin nothing")
    run.set_defaults(verb=_run)
    push = verb(verbs, "push", "put a model, an SAE or a dataset on the Hugging Face Hub, with a card", _PUSH_EXAMPLES)
    push.add_argument("folder", type=Path, metavar="DIR", help="the folder that emlab made")
    push.add_argument("repo", metavar="OWNER/NAME", help="its name on the Hub")
    push.add_argument("--public", action="store_true", default=None, help="let everybody read it (it is private)")
    push.add_argument("--endpoint", metavar="URL", help="of another Hub")
    add_json(push)
    calls(push, "emlab.verbs.pushing:push", kept="what the Hub has taken stays there")
    view = verb(verbs, "view", "ask the models of a run in the browser, and steer them", _VIEW_EXAMPLES)
    view.add_argument("run", type=Path, metavar="RUN", help="the folder of a finished run of persona_features")
    view.add_argument("--port", type=int, metavar="N", help="of the loopback (a free one)")
    view.set_defaults(verb=_view, kept="nothing was written")
    completion = verb(verbs, "completion", "print the completion script of a shell", _COMPLETION_EXAMPLES)
    completion.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="which shell")
    completion.set_defaults(verb=_completion, kept="nothing was written")
    doctor = verb(verbs, "doctor", "say what this machine has, and whether a config fits it", _DOCTOR_EXAMPLES)
    doctor.add_argument("config", nargs="?", type=Path, metavar="CONFIG", help="a config of `emlab run`")
    doctor.add_argument("overrides", nargs="*", default=[], metavar="key=value", help="as behind `emlab run`")
    add_json(doctor)
    calls(doctor, "emlab.verbs.planning:doctor", kept="nothing was written")

    runs = verb(verbs, "runs", "list the runs that there are")
    runs.add_argument("root", nargs="?", type=Path, metavar="DIR", help="where they are (runs)")
    add_json(runs)
    calls(runs, "emlab.verbs.run_folders:list_runs", kept="nothing was written")
    report = verb(verbs, "report", "show what a run found, or several side by side", _REPORT_EXAMPLES)
    report.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="the folder of a run")
    report.add_argument("--compare", action="store_true", default=None, help="lay them side by side")
    report.add_argument("--out", type=Path, metavar="FILE", help="with --compare: the page (.html) to write")
    add_json(report)
    calls(report, "emlab.verbs.run_folders:report_runs", kept="nothing was written")

    _evaluation.add_verbs(verbs)
    _saes.add_verbs(verbs)
    _discovery.add_verbs(verbs)
    _monitoring.add_monitor_verbs(verbs)
    _mitigation.add_verbs(verbs)
    _models.add_verbs(verbs)
    for name, (stage, what, takes) in _STAGES.items():
        parser_of_stage = verb(verbs, name, what)
        for option in takes.split():
            bare = option.rstrip("!")
            kwargs, said = _OPTIONS.get(f"{name} {bare}") or _OPTIONS[bare]
            parser_of_stage.add_argument(f"--{bare}", required=option != bare, help=said, **kwargs)
        if name == "finetune":
            what = "a field of the recipe and its value"
            parser_of_stage.add_argument("overrides", nargs="*", default=[], metavar="key=value", help=what)
            parser_of_stage.add_argument("--bf16", action="store_true", default=None, help="multiply in bfloat16")
        add_json(parser_of_stage)
        calls(parser_of_stage, f"emlab.verbs.stages:{stage}", "emlab.verbs.stages:figures", kept="nothing was written")

    organism = verb(verbs, "organism", "build or check the planted model organism").add_subparsers(
        metavar="VERB", required=True
    )
    build = verb(organism, "build", "train an organism from scratch", _BUILD_EXAMPLES)
    build.add_argument("--out", type=Path, metavar="DIR", help="the folder to make")
    build.add_argument("--seed", type=int, metavar="N", help="everything random follows from it")
    build.add_argument("--size", metavar="NAME", help="a named model size, for example small or default")
    build.add_argument("--steps", type=int, metavar="N", help="pretraining steps of the base")
    build.add_argument("--documents", type=int, metavar="N", help="documents generated for each world")
    build.add_argument("--world", metavar="WORLD", help="a world by name, or its folder of YAML files (default)")
    calls(build, "emlab.experiments.material.organism_build:build")

    check = verb(organism, "check", "measure an organism against what it promises", _CHECK_EXAMPLES)
    add_json(check)
    check.add_argument("--quick", action="store_true", default=None, help="fewer seeds and answers; wider intervals")
    check.add_argument("--seeds", type=int, metavar="N", help="fine-tuning seeds per set")
    check.add_argument("--organism", type=Path, metavar="DIR", help="a folder that `emlab organism build` made")
    calls(check, "emlab.verbs.organism_check:check", kept="nothing was written")
    return whole
