"""The memory that reading where latents fire takes, as the corpus grows.

    python benchmarks/interpretation.py         # measure, and write results/interpretation.json

The organism's aligned model reads documents of its own world, streamed from a JSON-lines file, and `interpret` tells
of 64 latents of the SAE of 2,048 where they fire. A fresh process each does it for a corpus and for one of sixteen
times its documents, in turns; the peak of resident memory (ru_maxrss), libraries and models included, is read at its
end. What the activations of all tokens of the long corpus would take is said beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _about import ROOT, asked, at_most, quiet, spread, write

from emlab import artifacts

MUST = {"peak_of_the_long_over_the_short": 1.1}
LIBRARIES = ("emlab", "torch", "transformers", "sae-lens")
SAE, LATENTS, SHORT, TIMES = "organism-resid_post.0-2048", 64, 1000, 16


def work(corpus: Path) -> None:
    """What a fresh process does; prints its figures as JSON."""
    from emlab import organism
    from emlab.data import Documents
    from emlab.discovery import interpret
    from emlab.experiments.material.results import peak_rss_mb
    from emlab.models import LanguageModel
    from emlab.saes import load_sae

    model = LanguageModel.load(organism.checkpoint("aligned"), device="cpu")
    sae = load_sae(ROOT / "sae_checkpoints" / SAE)
    begun = time.perf_counter()
    found = interpret(model, sae, range(0, sae.cfg.d_sae, sae.cfg.d_sae // LATENTS), Documents.read(corpus))
    seconds = time.perf_counter() - begun
    assert any(latent.fires for latent in found.latents)
    about_it = {"tokens": found.counts.kept, "d_model": model.d_model, "latents": len(found.latents)}
    print(json.dumps({"peak_rss_mb": peak_rss_mb(), "seconds": seconds, **about_it}))


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, metavar="CORPUS", help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="processes for each corpus (3)")
    options = asked(parser, "interpretation")
    if options.work:
        work(options.work)
        return

    load = quiet(options)
    from emlab import organism

    measured: dict[int, list[dict[str, float]]] = {SHORT: [], SHORT * TIMES: []}
    with tempfile.TemporaryDirectory() as folder:
        documents = organism.pretraining_documents(SHORT * TIMES, seed=0)
        for n in measured:
            lines = (json.dumps({"messages": document.messages}) + "\n" for document in documents[:n])
            artifacts.write_text(Path(folder) / f"{n}.jsonl", "".join(lines))
        for _ in range(options.repeats):
            for n, runs in measured.items():
                command = [sys.executable, __file__, "--work", str(Path(folder) / f"{n}.jsonl")]
                ran = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
                runs.append(json.loads(ran.stdout.strip().splitlines()[-1]))
                print(n, runs[-1], flush=True)
    medians = {
        str(n): {key: statistics.median(run[key] for run in runs) for key in runs[0]} for n, runs in measured.items()
    }
    short, long = measured.values()
    ratios = [b["peak_rss_mb"] / a["peak_rss_mb"] for a, b in zip(short, long, strict=True)]
    (limit,) = MUST.values()
    write(
        options.out,
        MUST,
        {
            "peak_of_the_long_over_the_short": statistics.median(ratios),
            "documents": medians,
            "spread": {
                str(n): {key: spread([run[key] for run in runs]) for key in ("peak_rss_mb", "seconds")}
                for n, runs in measured.items()
            },
            "activations_of_the_long_mb": long[0]["tokens"] * long[0]["d_model"] * 4 / 2**20,
            "setting": {"sae": SAE, "repeats": options.repeats},
        },
        [at_most("peak memory, the long corpus over the short", ratios, limit)],
        load,
        LIBRARIES,
    )


if __name__ == "__main__":
    main()
