# Each target sets up what it needs: a .venv, created once and reused. Needs Python >= 3.10, pip and make.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
INSTALLED_DEV := .venv/.installed-dev
COMMA := ,
UPSTREAMS := fbank_nonorm,hubert_mini,distilhubert_mini
# Tests whose outcome depends on how figures are rounded.
NUMERICAL := $(addprefix tests/,downstreams faults/test_out_of_memory.py features pretraining probing runs \
  test_pinned_figures.py upstreams/test_pinned_outputs.py upstreams/test_padded_batches.py analysis/test_cost.py)
# Pip alone would do; uv installs the same locked set several times faster.
UV := $(BIN)/uv pip install --quiet --python $(BIN)/python

# Modules are compiled when they are first imported, not all of them at installation.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup quickstart test test-rounding test-fast check docs bench lock clean

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "superb-eval needs Python >= 3.10: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	$(UV) --constraint constraints.txt --editable '.[synth]'
	touch $(INSTALLED)

# What tests, checks and documents need beside it.
$(INSTALLED_DEV): $(INSTALLED)
	$(UV) --constraint constraints.txt --editable '.[synth,dev,abx]'
	touch $(INSTALLED_DEV)

# Each step resumes what was interrupted and skips what is finished; the report is drawn beside the table.
quickstart: setup
	$(BIN)/superb-eval corpus synth --size mini --out quickstart/corpus
	$(BIN)/superb-eval suite --upstreams $(UPSTREAMS) --tasks all --profile mini --data quickstart/corpus \
	  --out quickstart/results --store quickstart/features
	test -f quickstart/results/cost.json || $(BIN)/superb-eval cost $(subst $(COMMA), ,$(UPSTREAMS)) --out quickstart/results
	$(BIN)/superb-eval report quickstart/results --against hubert_mini --out quickstart/report.html & \
	  $(BIN)/superb-eval table quickstart/results --against hubert_mini && wait $$!

test: $(INSTALLED_DEV)
	$(BIN)/python -m pytest -n auto --dist worksteal --durations 10

# Rounds as another processor does: torch's kernels without vector instructions, MKL's with those that all have.
test-rounding: $(INSTALLED_DEV)
	ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE \
	  $(BIN)/python -m pytest -n auto --dist worksteal -m "not slow" $(NUMERICAL)

test-fast: $(INSTALLED_DEV)
	$(BIN)/python -m pytest -n auto -m "not slow"

check: $(INSTALLED_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Writes site/index.html; a link that leads nowhere or a name that is not there is an error.
docs: $(INSTALLED_DEV)
	$(BIN)/mkdocs build --quiet

bench: $(INSTALLED_DEV)
	$(BIN)/python -m tests.benchmarks

# Locks versions for every platform and Python, without naming where they come from.
lock: $(INSTALLED_DEV)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --extra synth --extra lm --extra docs --extra dev --extra abx \
	  --no-header --no-annotate --no-emit-index-url --no-emit-find-links --output-file constraints.txt pyproject.toml

clean:
	rm -rf .venv quickstart site build dist *.egg-info
