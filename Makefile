# Two commands on a fresh machine: `make demo` and `make test`. PYTHON names the interpreter (3.11 or newer), VENV the folder.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check
CONFIG ?= config/minimal.yaml
SECONDS ?= 180
LOCK   := uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate
SPREAD ?= -n auto --dist worksteal

.PHONY: demo run test fuzz check format docs reference lock picture page-picture chart clean

demo: $(VENV)/.runtime   ## a proxy before simulated upstreams, no API key needed; CANARY=bad or good adds a rollout
	$(BIN)/serinus demo $(if $(CANARY),--$(CANARY)-canary)

run: $(VENV)/.runtime    ## serve CONFIG
	$(BIN)/serinus serve --config $(CONFIG)

test: $(VENV)/.dev
	$(BIN)/pytest $(SPREAD)

fuzz: $(VENV)/.dev       ## mutated bytes at every parser's edge, for SECONDS; SEED repeats a run
	$(BIN)/python -m tests.fuzz $(SECONDS) $(SEED)

check: $(VENV)/.dev docs ## what CI runs: format, lint, types, import rules, the documents' links, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest $(SPREAD)

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.dev       ## the documents as a site in build/docs; a link that leads nowhere fails it
	$(BIN)/sphinx-build -q -n -W --keep-going -c docs -d build/doctrees . build/docs
	@echo "The documents are in build/docs/docs/index.html."

reference: $(VENV)/.runtime  ## write the documents that follow from the settings and the commands anew
	$(BIN)/python docs/reference.py

lock: pyproject.toml     ## write all lock files anew; needs uv
	$(LOCK) pyproject.toml -o requirements.lock
	$(LOCK) --group dev pyproject.toml -o requirements-dev.lock
	$(LOCK) --group build -o requirements-build.lock
	$(LOCK) --extra otel -c requirements.lock pyproject.toml -o requirements-otel.lock \
	    $$(sed -n 's/^\([^ =]*\)==.*/--no-emit-package \1/p' requirements.lock)  # only what the extra adds

picture: $(VENV)/.runtime  ## draw the README's pictures anew
	$(BIN)/serinus demo --plain --seconds 20 --picture docs/demo.svg
	$(BIN)/serinus demo --plain --bad-canary --until-decided --picture docs/demo-canary.svg

page-picture: $(VENV)/.dev  ## take the pictures of the status page anew; needs chromium
	$(BIN)/python -m tests.browser.take_pictures docs

chart: $(VENV)/.dev      ## write the Helm chart's schema and README anew
	$(BIN)/python -m charts.generate

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Serinus needs Python 3.11 or newer; name one with PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements.lock pyproject.toml | $(BIN)/python
	$(PIP) --require-hashes -r requirements.lock
	$(PIP) --no-deps -e .
	touch $@

$(VENV)/.dev: requirements-dev.lock tests/chart/requirements.lock $(VENV)/.runtime
	$(PIP) --require-hashes -r requirements-dev.lock
	$(BIN)/python tests/chart/tools.py $(BIN)
	touch $@

clean:
	rm -rf $(VENV) dist build
