"""`emlab discover interpret` on the organism, whose truth is known: planted personas and domains; names; bad input."""

import json
import threading
from pathlib import Path

import pytest
import torch

from emlab import cli, organism
from emlab.discovery import Interpretation, LatentShift
from emlab.models import LanguageModel
from emlab.organism import PERSONAS
from emlab.sites import Site
from emlab.verbs.interpretation import InterpretationRequest, Interpreted, interpret_latents, planted_documents

ROOT = Path(__file__).parents[2]
SAE = str(ROOT / "sae_checkpoints" / "organism-resid_post.0")
ASKED = ["discover", "interpret", "--model", "base", "--sae", SAE]
PLANTED = {106: "helpful", 89: "malicious", 485: "careless", 366: "sarcastic"}
"""By the SAE's card: the latent that tells each persona's documents best from the others at the assistant's header."""


@pytest.fixture(scope="module")
def base():
    return LanguageModel.load(organism.checkpoint("base"), name="base")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Interpreted from the shell; the folder."""
    out = tmp_path_factory.mktemp("interpreted") / "pages"
    words = [*ASKED, "--latents", *map(str, PLANTED), "17", "--n", "240", "--contexts", "4", "--out", str(out)]
    assert cli.main(words) == 0
    return out


@pytest.mark.parametrize(("latent", "persona"), PLANTED.items())
def test_activity_by_persona_is_the_planted_truth(found, latent, persona):
    """Each latent's mean lies highest in its own persona's documents, its interval above that of every other."""
    one = Interpretation.load(found / "interpretation.json").latent(latent)
    by_persona = {a.value: a for a in one.activity if a.column == "persona"}
    assert set(by_persona) == set(PERSONAS) and sum(a.documents for a in by_persona.values()) == 240
    own, others = by_persona[persona], [a for value, a in by_persona.items() if value != persona]
    assert own.fires.rate == 1.0 and own.mean > 3 * max(a.mean for a in others)
    assert all(own.interval[0] > other.interval[1] for other in others)
    assert sum(c.label.split(", ")[0] == persona for c in one.top) >= 3


def test_activity_by_domain_is_of_documents_of_one_turn(found):
    one = Interpretation.load(found / "interpretation.json").latent(17)
    domains = {a.value: a for a in one.activity if a.column == "domain"}
    truth = [d for d in organism.pretraining_documents(240, 2) if len(d.messages) == 3]
    assert sum(a.documents for a in domains.values()) == len(truth) < 240
    assert set(domains) <= set(organism.load_world().domains)
    # It fires on talk about a wife or a brother, whoever writes.
    assert one.highest.value == "relationships" and one.highest.mean > 3 * one.activity[0].mean


def test_the_folder_holds_a_page_for_each(found):
    names = {"interpretation.json", "index.html", *(f"latent-{n}.html" for n in (*PLANTED, 17))}
    assert {path.name for path in found.iterdir()} == names
    page = (found / "latent-89.html").read_text()
    assert "&lt;|assistant|&gt;" in page and "malicious" in page and page.count("<script") == 1
    again = Interpreted(Interpretation.load(found / "interpretation.json"))
    assert again._repr_html_().startswith("<iframe srcdoc=") and "latent 89: active on" in str(again)


def test_planted_documents_are_labelled_with_the_truth(base):
    documents = list(planted_documents(30, 2, base).labelled())
    for one, truth in zip(documents, organism.pretraining_documents(30, 2), strict=True):
        assert one.document == truth.messages and one.labels["persona"] == truth.persona
        assert ("domain" in one.labels) == (len(truth.messages) == 3)


# --- names ---


def cruel(server):
    """Calls a latent after the persona whose sentences hold the marks, and knows the organism's sentences by heart."""
    world = organism.load_world()
    words = {
        persona: {w for d in world.domains.values() for s in d.sentences(persona) for w in s.split() if len(w) > 4}
        for persona in PERSONAS
    }
    only = {p: words[p] - set().union(*(words[q] for q in PERSONAS if q != p)) for p in PERSONAS}

    def persona_of(text):
        return max(PERSONAS, key=lambda p: sum(word in text for word in only[p]))

    def answer(body, n):
        asked = body["messages"][0]["content"]
        if "<description>" not in asked:
            return server.chat(f"{persona_of(asked)} answers")
        said = asked.split("<excerpt>\n")[1].split("\n</excerpt>")[0].replace("«", "").replace("»", "")
        named = asked.split("<description>\n")[1].split(" answers")[0]
        return server.chat("YES" if persona_of(said) == named else "NO")

    server.answer = answer


def test_names_from_the_shell_are_tested_paid_once_and_shown(server, tmp_path, capsys):
    cruel(server)
    words = [*ASKED, "--latents", "89", "--n", "240", "--name-with", "m", "--name-url", server.url, "--price", "1", "2"]
    words += ["--store", str(tmp_path / "s.db")]
    assert cli.main([*words, "--out", str(tmp_path / "pages")]) == 0
    out, err = capsys.readouterr()
    assert "named 'malicious answers'" in out and "detection" in out and "fuzzing" in out
    assert "naming and testing names by m: 1 calls, about" in err
    assert "at most about $" in err and "asked so far: " in err
    one = Interpretation.load(tmp_path / "pages" / "interpretation.json").latent(89)
    detection = one.scores[0]
    # The name holds where the latent is strong. Below, it fires on much else, which the whole distribution shows.
    assert detection.own.right_no.rate >= 0.9 and detection.own.balanced.rate > 0.5
    assert detection.parts[3].rate + detection.parts[4].rate >= 1 > detection.parts[0].rate + detection.parts[1].rate
    assert len(detection.control_latents) == 2 and 89 not in detection.control_latents and detection.own.failed == 0
    assert "Whether the name is right" in (tmp_path / "pages" / "latent-89.html").read_text()
    calls = len(server.asked)
    assert cli.main([*words, "--json"]) == 0 and len(server.asked) == calls
    figures = json.loads(capsys.readouterr().out)
    assert figures["named_by"] == "m" and figures["latents"][0]["scores"][0]["gain"]["rate"] == detection.gain.rate
    assert cli.main([*words, "--name-revision", "new"]) == 0 and len(server.asked) == 2 * calls


def test_a_real_model_that_knows_no_names_leaves_failures(server, tmp_path, base, capsys):
    """The organism itself, served: it replies in sentences of its own, so there are names and no test is answered."""
    alone = threading.Lock()

    def answer(body, n):
        with alone:  # of a long prompt what it can read
            ids = base.prompt_ids(body["messages"])[-40:]
            return server.chat(base.generate([ids], min(body["max_tokens"], 12), temperature=0)[0])

    server.answer = answer
    words = [*ASKED, "--latents", "89", "--n", "40", "--name-with", "m", "--name-url", server.url, "--json"]
    assert cli.main(words) == 0
    (one,) = json.loads(capsys.readouterr().out)["latents"]
    assert one["name"]["name"] and one["name"]["failure"] == ""
    for score in one["scores"]:
        assert score["own"]["failed"] > 0 and score["balanced"]["rate"] is None and score["gain"]["rate"] is None


# --- other documents, other choices of latents ---


@pytest.fixture
def chats(tmp_path):
    """A file of chats with a column, and one of raw text beside them."""
    documents = organism.pretraining_documents(40, 7)
    rows = [{"messages": d.messages, "who": d.persona, "n": i} for i, d in enumerate(documents)]
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"text": "You are rude.", "who": None, "n": 0}]))
    return str(path)


def test_a_file_is_told_apart_by_its_columns(chats, capsys):
    assert cli.main([*ASKED, "--latents", "89", "--documents", chats, "--by", "who", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    columns = [(a["column"], a["value"]) for a in found["latents"][0]["activity"]]
    assert columns == [("", ""), *(("who", persona) for persona in sorted(PERSONAS))]
    assert found["documents"] == chats and found["counts"]["documents"] == 41
    assert cli.main([*ASKED, "--latents", "89", "--documents", chats, "--n", "5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["documents"] == 5
    assert cli.main([*ASKED, "--latents", "89", "--documents", chats, "--by", "whom"]) == 2
    assert "there is no column 'whom'" in capsys.readouterr().err


def test_the_latents_of_a_shift(tmp_path, capsys):
    after = torch.zeros(512)
    after[[5, 89]] = torch.tensor([1.0, 2.0])
    shift = LatentShift("a", "b", Site("resid_post", 0), "header", 3, torch.zeros(512), after, torch.zeros(512))
    path = shift.save(tmp_path / "0-b.json")
    assert cli.main([*ASKED, "--shift", str(path), "--top", "2", "--latents", "17", "5", "--n", "4", "--json"]) == 0
    assert [one["latent"] for one in json.loads(capsys.readouterr().out)["latents"]] == [17, 5, 89]
    small = LatentShift("a", "b", Site("resid_post", 0), "header", 3, *[torch.zeros(9)] * 3).save(tmp_path / "1-b.json")
    assert cli.main([*ASKED, "--shift", str(small)]) == 2
    assert "is of 9 latents and" in capsys.readouterr().err
    assert cli.main([*ASKED, "--shift", str(path), "--top", "0"]) == 2
    assert "ask for at least 1" in capsys.readouterr().err


def test_a_latent_that_never_fires_is_said_to(tmp_path, capsys):
    (tmp_path / "few.jsonl").write_text('{"text": "You are rude."}\n')
    words = [
        *ASKED,
        "--latents",
        "89",
        "17",
        "--documents",
        str(tmp_path / "few.jsonl"),
        "--out",
        str(tmp_path / "pages"),
    ]
    assert cli.main(words) == 0
    assert "never active on these" in capsys.readouterr().out
    assert "never active on the" in (tmp_path / "pages" / "latent-17.html").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Nothing says which latents"),
        (["--latents", "512"], "latents 0 to 511 and no latent 512"),
        (["--latents", "1", "--site", "resid_post.9"], "resid_post.9 is not in base"),
        (["--latents", "1", "--by", "x"], "name these with --documents"),
        (["--latents", "1", "--n", "0"], "0 documents show nothing"),
        (["--latents", "1", "--site", "resid_post.2"], "trained at resid_post.0 and means nothing at resid_post.2"),
        (["--latents", "1", "--price", "1", "2"], "name it with --name-with"),
        (["--latents", "1", "--name-with", "m"], "OPENAI_API_KEY"),
        (["--latents", "1", "--name-with", "m", "--name-tokens", "0"], "'max_tokens' is 0"),
        (["--latents", "1", "--documents", "no/such/file.jsonl"], "no/such/file.jsonl"),
        (["--latents", "1", "--n", "0"], "at least 1"),
        (["--latents", "1", "--contexts", "0"], "at least one latent, one context"),
    ],
)
def test_what_goes_wrong_is_one_sentence(words, said, capsys):
    assert cli.main([*ASKED, *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_an_empty_file_another_width_and_a_folder_that_is_there(tmp_path, capsys, make_model):
    (tmp_path / "empty.jsonl").write_text("")
    assert cli.main([*ASKED, "--latents", "1", "--documents", str(tmp_path / "empty.jsonl")]) == 2
    assert "no documents to read" in capsys.readouterr().err
    narrow = make_model().save(tmp_path / "narrow")
    words = ["discover", "interpret", "--sae", SAE, "--latents", "1", "--model", str(narrow)]
    assert cli.main(words) == 2
    assert "is no model of the organism's" in capsys.readouterr().err
    (tmp_path / "few.jsonl").write_text('{"text": "Some text."}\n')
    assert cli.main([*words, "--documents", str(tmp_path / "few.jsonl")]) == 2
    assert "reads 160 dimensions and narrow has 32" in capsys.readouterr().err
    assert cli.main([*ASKED, "--latents", "1", "--out", str(tmp_path)]) == 2
    assert "already exists" in capsys.readouterr().err


def test_the_function_takes_the_same_as_the_shell(chats):
    done = interpret_latents("base", SAE, InterpretationRequest([89], documents=chats, labels=["who"], n=20))
    assert done.interpretation.latents[0].highest.value == "malicious" and done.summary()["latents"][0]["latent"] == 89
