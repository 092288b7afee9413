# make generate   set everything up and write out.mp4 from two example faces
# make test       set everything up and run the tests
# make fuzz       10,000 mutated files and values of each kind (the tests run a sample)
# make kills      generate is killed 20 times by each signal (the tests do it once)
# make lint       ruff and mypy
# make docs       write the tables of the documentation from docs/results
# make clean      remove what the others made
#
# PYTHON=python3.12 make ...   another interpreter; 3.11 is the oldest that works.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
PROMPT := Two people talk and laugh in front of a blue wall; the left one nods.

.DELETE_ON_ERROR:
.PHONY: generate test fuzz kills lint docs clean

generate: $(VENV)/.installed
	$(BIN)/igrpo generate examples/faces/ann.png examples/faces/bob.png \
		--prompt "$(PROMPT)" --seed 7 --output out.mp4 --overwrite

# Two workers with one thread each: on two cores faster than one worker with two threads. What depends on a clock
# runs last, one test after the other, and also when others have failed.
test: $(VENV)/.installed-dev
	@export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 HF_HUB_OFFLINE=1; failed=0; \
	$(BIN)/python -m pytest -m "not timing" -n 2 --dist worksteal || failed=1; \
	$(BIN)/python -m pytest -m timing $$(grep -rl 'mark\.timing' tests --include='*.py') || failed=1; \
	exit $$failed

fuzz: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python tests/faults/fuzzing.py

kills: $(VENV)/.installed-dev
	IGRPO_KILLS=20 OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest tests/faults/test_kills.py

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict igrpo_sdk training examples

# Needs nothing but Python.
docs:
	$(PYTHON) docs/tables.py

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis out.mp4

# The stamps: a set-up is repeated only when what it depends on has changed. An old egg-info would hide new commands.
$(VENV)/.created: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; this is $$($(PYTHON) --version). Try: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.created pyproject.toml
	@echo "Installing igrpo-sdk into $(VENV): a few minutes, once."
	@rm -rf *.egg-info
	$(PIP) --editable '.[faces]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing what the tests need."
	@rm -rf *.egg-info
	$(PIP) --editable '.[dev,faces,judge,serve,train]'
	@touch $@
