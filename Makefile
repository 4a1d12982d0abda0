# make demo       set up .venv and run the lab's main job on the shipped organism
# make test       lint, types, import direction, dependencies, then the tests that are not marked slow
# make test-all   the same with the slow tests
# make docs       fill README.md and the other texts from the kept results
# make site       the documents as a site in build/site/, where a warning is an error; installs the extra docs
# make results    run every experiment that a text tells of, keep what it found in docs/, and fill the texts: hours.
#                 Stopped, the same command goes on. Some only: make results RESULTS="domains backdoor"
#                 NAME_sealed is the final run of NAME, on what nothing was chosen on: RESULTS=remedies_sealed
# make real       the lab's main job on a real model, SmolLM2-135M-Instruct, which is fetched: hours on 2 cores.
#                 Stopped, the same command goes on
# make test-real  the tests that need that model
# make lint       ruff, mypy, the import direction and the dependencies only
# make benchmarks every benchmark, as soon as the machine does nothing else; goes on after an interruption
# make mutants    plant faults in evaluation, detection, discovery and mitigation, one at a time, and see which the tests
#                 miss: docs/mutants.json (an hour or more on one core; stopped, it goes on where it was)
# make faults     kill, starve and damage the main job from outside, and see that it ends as if nothing had been:
#                 docs/faults.json (an hour on one core; some cases need root)
# make clean      remove the environment, build outputs and caches; runs/ is never touched
#
# Variables: MUTANTS="--seed 1 --each 15 --out docs/mutants_fresh.json"
#            VENV=folder  PYTHON=python3.12  TORCH_INDEX=URL (an index with the torch build you want, e.g. a CUDA one)

VENV ?= .venv
TORCH_INDEX ?= $(if $(filter Linux,$(shell uname -s)),https://download.pytorch.org/whl/cpu)

RESULTS ?= persona_features dose_response domains backdoor pretraining checkpoints monitors early_warning data_screening \
  reinforcement_learning reward_spread feature_attribution false_discoveries false_discoveries_unchecked \
  remedies_reinforcement remedies sizes organism_check discovery_scorecard

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SITE := $(VENV)/.site
TORCH := $(shell grep '^torch==' constraints.txt)
# Files side by side, a core each: more threads than cores would only get in each other's way.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

.PHONY: demo real docs site results test test-all test-real lint benchmarks mutants faults clean
.DELETE_ON_ERROR:

demo: $(INSTALLED)
	$(BIN)/emlab run experiments/persona_features.yaml

real: $(INSTALLED)
	$(BIN)/emlab models get smollm2-135m-instruct
	$(BIN)/emlab run experiments/real/smollm2-135m-instruct.yaml

docs: $(INSTALLED)
	$(BIN)/python docs/fill.py

site: $(SITE)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build  # not --quiet: it hides warnings from strict mode
	@echo "Open build/site/index.html"

$(SITE): $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

# summary= keeps a run's summary.json, too; a run without it (make demo, or one of your own) keeps nothing in docs/.
# One that fails, or that a bound speaks against, holds up none of the others; Ctrl-C ends them all.
results: $(INSTALLED)
	@failed=; for name in $(RESULTS); do \
	  echo "== $$name"; \
	  case $$name in \
	    organism_check) $(BIN)/emlab organism check --json docs/$$name.json;; \
	    *_sealed) $(BIN)/emlab run experiments/$${name%_sealed}.yaml sealed=true summary=docs/$$name.json;; \
	    *) $(BIN)/emlab run experiments/$$name.yaml summary=docs/$$name.json;; \
	  esac; \
	  code=$$?; [ $$code -lt 128 ] || exit $$code; [ $$code -eq 0 ] || failed="$$failed $$name"; \
	done; \
	$(BIN)/python docs/fill.py || failed="$$failed texts"; \
	[ -z "$$failed" ] || { echo "Not as it must be:$$failed" >&2; exit 1; }

test: lint
	$(PYTEST) -m "not slow and not real"

test-all: lint
	$(PYTEST)

test-real: $(INSTALLED)
	$(BIN)/emlab models get smollm2-135m-instruct
	$(PYTEST) -m real

benchmarks: $(INSTALLED)
	$(BIN)/python benchmarks/all.py

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/deptry .

mutants: $(INSTALLED)
	$(BIN)/python tests/mutants.py $(MUTANTS)

faults: $(INSTALLED)
	$(BIN)/python tests/faults.py

# The stamp is newer than the environment's recipe (pyproject.toml, constraints.txt) once everything is installed.
# torch comes first and alone: its own index is tried once, briefly, and the default index is what remains.
# A distribution called emlab is taken away first: it is what this one was called before, or somebody else's.
$(INSTALLED): pyproject.toml constraints.txt
	@chosen=; for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11 python); do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then chosen=$$python; break; fi; \
	done; \
	if [ -z "$$chosen" ]; then \
	  echo "emlab needs Python 3.11 or newer and found none as $(or $(PYTHON),python3): install one, or name it with 'make PYTHON=/path/to/python'." >&2; exit 1; \
	fi; \
	[ -x $(BIN)/python ] || "$$chosen" -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(VENV) holds a Python older than 3.11: run 'make clean' first." >&2; exit 1; }
	@$(BIN)/python -m pip show --quiet torch >/dev/null 2>&1 || { \
	  [ -n "$(TORCH_INDEX)" ] && echo "Installing $(TORCH) from $(TORCH_INDEX)" && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --retries 0 --timeout 8 --no-deps \
	    --index-url $(TORCH_INDEX) $(TORCH); \
	} || { \
	  echo "Installing $(TORCH) from the default index"; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(TORCH); \
	}
	@echo "Installing emlab and what it needs (a minute or two)"
	@! ls -d $(VENV)/lib/python3*/site-packages/emlab-*.dist-info >/dev/null 2>&1 || \
	  $(BIN)/python -m pip uninstall --quiet --yes emlab
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	@if [ -f $(VENV)/pyvenv.cfg ]; then rm -rf $(VENV); fi
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find emlab tests -name __pycache__ -type d -prune -exec rm -rf {} +
