# make demo   run the main job offline, from nothing but Python
# make test   the fast suite        make test-slow   kill loops        make lint        make bench
# make site   the documentation as a site, in build/site

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# One more than there are cores, since many tests wait for processes and servers.
WORKERS := $(shell expr `getconf _NPROCESSORS_ONLN` + 1)

RECORDED := $(BIN)/datagen evolve examples/demo/seeds.jsonl --rounds 2 -q -o demo/recorded.jsonl \
    --model replay:examples/demo/replies.jsonl
DEMO := $(BIN)/datagen evolve examples/seeds.jsonl -o demo/seeds.evolve.jsonl \
    --model sim:refuse=0.05,leak=0.05,noop=0.05,malformed=0.02

.PHONY: demo test test-slow lint bench docs site clean

demo: $(VENV)/base
	@mkdir -p demo
	$(RECORDED)
	@$(BIN)/python examples/show.py examples/demo/seeds.jsonl demo/recorded.jsonl
	$(DEMO)
	$(DEMO)

test: $(VENV)/dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test-slow: $(VENV)/dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m slow --durations=20 --maxfail=3

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python docs/generate.py --check

bench: $(VENV)/dev
	$(BIN)/python -m benchmarks.all

docs: $(VENV)/dev
	$(BIN)/python docs/generate.py

# The pages are copied, since the README and others lie beside docs/ and their links must hold.
site: build/venv/site
	rm -rf build/pages build/site
	mkdir -p build/pages
	cp -r README.md README.zh.md CHANGELOG.md CONTRIBUTING.md docs build/pages
	build/venv/bin/zensical build --clean --strict

clean:
	rm -rf $(VENV) demo build .cache

$(VENV)/base: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	@touch $@

$(VENV)/dev: $(VENV)/base
	$(PIP) --editable '.[dev]'
	@touch $@

build/venv/site: pyproject.toml
	@test -x build/venv/bin/python || $(PYTHON) -m venv build/venv
	build/venv/bin/python -m pip install --quiet --disable-pip-version-check '.[site]'
	@touch $@
