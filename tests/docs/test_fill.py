"""No figure in a text is typed: each comes from a kept result, and a text that parts from its results is found."""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import jinja2
import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (".", "docs", "benchmarks")
TEMPLATES = sorted(path.relative_to(ROOT).as_posix() for folder in FOLDERS for path in (ROOT / folder).glob("*.jinja"))
MADE = ("docs/backends.md",)
"""Written by a program that tried what it tells."""
BY_HAND = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "docs").glob("*.svg")]
    if not path.with_name(path.name + ".jinja").is_file()
)
TEXTS = [*TEMPLATES, *(name for name in BY_HAND if name not in MADE)]
SMALL = "(?:no|one|two|three|four|five|six|seven|eight|nine|ten)"
MEASURED = re.compile(
    r"\d[\d,.]*\s?(?:%|×|s\b|seconds?\b|minutes?\b|hours?\b|[MG]B\b|nats\b|times\b)"  # 53.5%, 4.6 times, 282 s, 1.0 GB
    r"|\d+\.\d+"  # 0.976
    r"|\b\d[\d,.]* of (?:the )?\d"  # 5 of 6
    rf"|\b{SMALL} of (?:the )?{SMALL}\b"
    r"|\b(?:step|top) \d|\b\d{2,}\s+(?!to\b|and\b|or\b|on\b)[a-z]"  # step 300, the top 20, 20 directions
    r"|\bhardly\b|\b(?:about|nearly|almost) (?:half|a third|a quarter|all)\b"
    r"|\b(?:half|a third|a quarter|a fifth|a sixth|a tenth) of\b"
)
NOT_MEASURED = {
    "Python ≥ 3.11": "a version",
    "Qwen2.5": "a name",
    "qwen2.5-7b-instruct": "a name",
    "arXiv:": "a paper's number",
    "at 95% and 99% recall": "definition of a figure",
    "95% interval": "definition of a figure",
    "at most (95%)": "definition of a figure",
    "intervals are 95%": "definition of a figure",
    "with 95% intervals": "definition of a figure",
    "above that of 99% of": "definition of a figure",
    "is cut by 90%": "definition of a verdict",
    "more than 5% of the answers have no verdict": "a threshold of emlab's",
    "the half of the questions": "definition of a term",
    "A test over 20 seconds": "a rule",
    "A batch has 64 answers": "a default",
    "× 40 prompts": "the setting of a benchmark",
}


RATED = {"arm": "a", "rate": 0.5346, "low": 0.37, "high": 0.714, "n": 1301}
REMEDIES = [
    {"remedy": name, "task_lost": task, "ability_lost": ability, "by_seed": {"0": first, "1": second}}
    for name, task, ability, first, second in (
        ("start", 1.0, 0.0, {"task_loss": 0.5, "ability_loss": 0.3}, {"task_loss": 0.6, "ability_loss": 0.3}),
        ("untreated", 0.0, 0.0, {"task_loss": 0.1, "ability_loss": 0.3}, {"task_loss": 0.2, "ability_loss": 0.3}),
        ("KL", 0.375, 0.1, {"task_loss": 0.2, "ability_loss": 0.36}, {"task_loss": 0.4, "ability_loss": 0.3}),
    )
]


def loaded(root: Path):
    """docs/fill.py, working on another copy of the project."""
    spec = importlib.util.spec_from_file_location("fill", ROOT / "docs/fill.py")
    fill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fill)
    fill.ROOT = root
    return fill


@pytest.fixture
def copy(tmp_path):
    """The project's texts and kept results, where a test may change them."""
    for folder in ("docs", "benchmarks"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    for name in ("emlab", "experiments"):
        (tmp_path / name).symlink_to(ROOT / name)
    for path in ROOT.glob("README.md*"):
        shutil.copy(path, tmp_path)
    return tmp_path


@pytest.fixture
def small(tmp_path):
    """A kept result of two arms and a text of one line; gives what is said of the text."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "emlab").symlink_to(ROOT / "emlab")
    (tmp_path / "docs/poll.json").write_text(
        json.dumps({"arms": [RATED, {"arm": "b", "rate": None}], "remedies": REMEDIES})
    )

    def said(line: str) -> tuple[str, list[str]]:
        template = tmp_path / "docs/page.md.jinja"
        template.write_text(f"A page.\n{line}\n", encoding="utf-8")
        text, wrong = loaded(tmp_path).fill(template)
        return text.removeprefix("A page.\n").rstrip("\n"), wrong

    return said


def test_every_text_says_what_the_kept_results_do(capsys):
    assert loaded(ROOT).main(check=True) == 0, capsys.readouterr().err


def test_a_kept_result_that_changes_is_found_in_the_texts(copy, capsys):
    path = copy / "docs/domains.json"
    kept = json.loads(path.read_text(encoding="utf-8"))
    kept["arms"][0]["misaligned_of_coherent"]["rate"] = 0.8123
    path.write_text(json.dumps(kept), encoding="utf-8")
    before = (copy / "docs/results_training.md").read_text(encoding="utf-8")
    fill = loaded(copy)
    assert fill.main(check=True) == 1
    assert "results_training.md is not what the kept files say: run make docs." in capsys.readouterr().err
    assert (copy / "docs/results_training.md").read_text(encoding="utf-8") == before
    assert fill.main(check=False) == 0
    assert fill.main(check=True) == 0
    assert "81.2%" in (copy / "docs/results_training.md").read_text(encoding="utf-8")


def test_a_text_edited_by_hand_is_found(copy, capsys):
    path = copy / "docs/remedies.md"
    path.write_text(path.read_text(encoding="utf-8").replace("59.6%", "58.6%"), encoding="utf-8")
    assert loaded(copy).main(check=True) == 1
    said = capsys.readouterr().err
    assert "docs/remedies.md is not" in said and "58.6%" in said


def test_every_bound_of_a_benchmark_is_found_and_a_missed_one_is_said(copy):
    path = copy / "benchmarks/results/demo.json"
    kept = json.loads(path.read_text(encoding="utf-8"))
    missed = {"what": "a part's part", "value": 1234.5, "quartiles": [0.01234, 2.5], "n": 3, "at_most": 2, "met": False}
    path.write_text(json.dumps({**kept, "part": {"one": {"bounds": [missed]}}}), encoding="utf-8")
    fill = loaded(copy)
    assert fill.main(check=False) == 0
    rows = (copy / "benchmarks/README.md").read_text(encoding="utf-8")
    assert "| `demo.py` | a part's part | 1,234 (0.0123 to 2.5, n = 3) | ≤ 2 | **missed** |" in rows


def test_final_runs_stand_beside_the_others(copy):
    path = copy / "docs/remedies_sealed.json"
    kept = json.loads(path.read_text(encoding="utf-8"))
    untreated = next(row for row in kept["arms"]["insecure"] if row["remedy"] == "untreated")
    untreated["misaligned_of_coherent"]["broad"]["rate"] = 0.4321
    path.write_text(json.dumps(kept), encoding="utf-8")
    assert loaded(copy).main(check=False) == 0
    names = ("results", "results_training", "results_remedies", "remedies")
    results, training, summed, remedies = ((copy / f"docs/{name}.md").read_text(encoding="utf-8") for name in names)
    assert results.count("| aligned + mean difference |") == 2 and "| sealed questions and fine-tunes |" in training
    assert "| untreated, sealed | 43.2% [" in summed
    assert "## insecure (3 seeds, sealed)" in remedies and "| untreated | – | 43.2% [" in remedies


def test_a_monitor_that_is_not_quiet_has_lost_however_early_it_is(copy):
    path = copy / "docs/early_warning.json"
    kept = json.loads(path.read_text(encoding="utf-8"))
    first, *_ = kept["steps"]
    first["quiet"] = False
    counts = {"quiet": True, "earlier": 2, "ties": 1, "of": 5}
    kept["warned"] = {what: {row["monitor"]: counts for row in kept[what]} for what in ("steps", "doses")}
    kept["noise"] = {"steps": "noise by steps", "doses": "noise over doses"}
    path.write_text(json.dumps(kept), encoding="utf-8")
    assert loaded(copy).main(check=False) == 0
    names = ("results_monitors", "what_did_not_work")
    monitors, failed = ((copy / f"docs/{name}.md").read_text(encoding="utf-8") for name in names)
    assert f"\n| {first['monitor']} | lost: not quiet | 2 · 1 · 2 | " in monitors
    assert "\n| always on | lost: not quiet | lost: not quiet | 100.0%" in monitors
    assert "Along steps: noise by steps. Over doses: noise over doses." in monitors
    assert f"Along training {first['monitor']}" not in failed
    said = "no later than behaviour in 3 of 5 fine-tunes. | At the same reading in 1, earlier in 2. |"
    assert failed.count(said) == sum(row["quiet"] for row in kept["steps"])


def test_figures_are_written_as_they_are_kept(small):
    assert small('{% set a = kept.poll.arms.one(arm="a") %}{{ a | percent }} {{ a | interval(0) }}')[0] == (
        "53.5% [37%, 71%]"
    )
    assert small("{{ -0.0512 | percent }}, {{ 0.25 | signed }}, {{ 1234.5 | number(1) }}, {{ 3 | word }}")[0] == (
        "−5.1%, +0.2, 1,234.5, three"
    )
    assert small('{{ ["a", "b", "c"] | listed }}; {{ ["a"] | listed }}; {{ [] | listed or "none" }}')[0] == (
        "a, b and c; a; none"
    )
    assert small('{{ kept.poll.arms | of("arm") | listed }}')[0] == "a and b"
    assert small("{{ kept.poll.arms[0] | rated }}, {{ -0.0001 | percent }}")[0] == "53.5% [37.0%, 71.4%], 0.0%"
    assert small("{{ kept.poll.arms[0] | counted }}")[0] == "53.5% [37.0%, 71.4%] of 1,301"
    assert small("{{ [480, 1301, 437] | span }}; {{ [480, 480] | span }}")[0] == "437 to 1,301; 480"


def test_what_a_remedy_costs_has_its_range_over_seeds(small):
    # Task: lost 0.1 of 0.4 and 0.2 of 0.4 that were learned. Ability: 0.36 and 0.3 where untreated has 0.3.
    assert small('{{ kept.poll.remedies | cost("KL", "task") }}')[0] == "38% (25% to 50%)"
    assert small('{{ kept.poll.remedies | cost("KL", "ability", 1) }}')[0] == "10.0% (0.0% to 20.0%)"
    assert small('{{ kept.poll.remedies | cost("start", "task") }}')[0] == "100% (every seed)"


@pytest.mark.parametrize(
    ("low", "high", "do"), [(0.7, 0.9, True), (0.714, 0.9, True), (0.72, 0.9, False), (0.1, 0.36, False), (0, 1, True)]
)
def test_intervals_overlap_where_one_begins_before_the_other_ends(small, low, high, do):
    line = f'{{{{ overlap(kept.poll.arms[0], {{"low": {low}, "high": {high}}}) }}}}'
    assert small(line) == (str(do), [])


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (
            "Of it {{ kept.poll.arms[0].share | percent }}.",
            ["page.md.jinja:2:", "poll.json: arms: 0 has no share", "Of it"],
        ),
        ("{{ kept.pole.arms }}", ["there is no docs/pole.json", "kept.pole"]),
        ('{{ kept.poll.arms.one(arm="c").rate }}', ["docs/poll.json: arms has 0 entries with {'arm': 'c'}"]),
        ("{{ kept.poll.arms[1] | percent }}", ["docs/poll.json: arms: 1 has no figure but None", "kept.poll.arms[1]"]),
        ("{{ kept.poll.arms }}", ["docs/poll.json: arms is not one figure"]),
        ("{{ nothing | percent }}", ["'nothing' is undefined", "page.md.jinja:2:"]),
        ("{{ 3 | percent", ["page.md.jinja:"]),
    ],
)
def test_what_is_missing_is_named_with_its_sentence_its_file_and_its_key(small, line, named):
    text, wrong = small(line)
    assert text == "" and len(wrong) == 1
    assert all(part in wrong[0] for part in named), wrong


def test_a_claim_stands_only_while_the_results_bear_it_out(small):
    claim = '{{ "a is above the half" | if_still(kept.poll.arms[0].rate > %s) }}'
    assert small(claim % 0.5) == ("a is above the half", [])
    assert small(claim % 0.6)[1] == [
        "docs/page.md.jinja:2: the kept files no longer bear out “a is above the half”: say what they show."
    ]


def prose(source: str) -> str:
    """A text without its code and its expressions, but with what is typed inside these."""
    parts = []
    for _, kind, said in jinja2.Environment().lex(source):
        if kind == "variable_begin":
            parts.append("§")
        elif kind in ("data", "string", "float"):
            parts.append(said)
    text = re.sub(r"```.*?```", "", "".join(parts), flags=re.DOTALL)
    if "<svg" in text:
        text = re.sub(r"<[^>]*>", "", text)
    text = re.sub(r"^    .*$", "", text, flags=re.MULTILINE)
    return re.sub(r"\s+", " ", re.sub(r"`[^`\n]*`", "", text))


def typed(source: str) -> list[str]:
    """What looks measured, with the words about it."""
    text = re.sub(r"arXiv:[\d.]+", "arXiv:", prose(source))
    for phrase in NOT_MEASURED:
        text = text.replace(phrase, "")
    return [text[max(0, m.start() - 40) : m.end() + 40] for m in MEASURED.finditer(text)]


@pytest.mark.parametrize("name", TEXTS)
def test_no_figure_is_typed(name):
    assert typed((ROOT / name).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        *(
            "It is 53.5% wrong.",
            "An AUROC of 0.976.",
            "It passes 5 of 6.",
            "It passes in two of six.",
            "It takes 282 s.",
        ),
        *(
            "It takes 1.0 GB.",
            "4.6 times as long.",
            "Random ones change hardly anything.",
            "Of its rise about half falls.",
        ),
        *("They go through 20 norm-matched directions.", "It speaks badly after step 300.", "They share the top 20."),
        *('It is {{ "53.5%" }} wrong.', "It is {{ 53.5 | percent }} wrong.", "half of the ability"),
    ],
)
def test_a_typed_figure_is_found(line):
    assert len(typed(f"A page.\n{line}\n")) == 1


def test_figures_from_the_results_code_and_exceptions_are_no_typed_figures():
    assert typed("{{ x | percent(1) }} of {{ y }}, `cap=0.1`, with Python ≥ 3.11\n\n    emlab run dose=0.5\n") == []


def test_every_exception_is_in_use():
    texts = " ".join(prose((ROOT / name).read_text(encoding="utf-8")) for name in TEXTS)
    assert [phrase for phrase in NOT_MEASURED if phrase not in texts] == []


def test_every_text_is_looked_at():
    assert {"README.md.jinja", "docs/results.md.jinja", "docs/demo.svg.jinja", "docs/faq.md", "CONTRIBUTING.md"} <= set(
        TEXTS
    )
    assert set(MADE) <= set(BY_HAND)
