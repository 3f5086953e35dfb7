# Two commands do all on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
UV     := $(BIN)/uv
UV_VERSION := 0.13.9
SERVERS ?= .servers
SOURCES := $(shell find schemas connectors pipeline -type f -not -path '*/__pycache__/*') pyproject.toml
export PYTHONDONTWRITEBYTECODE =

.DEFAULT_GOAL := help
.PHONY: help demo test unit lint test-faults soak bench install schemas docs lock clean servers-install servers-up servers-down

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: install ## install and replay 60 scripted days; prints what was found
	@$(BIN)/complaint-radar demo

install: $(VENV)/.installed ## make .venv and install complaint-radar in it

test: $(VENV)/.installed-dev ## everything that must pass: lint, types, imports, all suites, on the built wheel
	@$(BIN)/python tests/suites.py lint unit contract scenarios deploy integration

unit: $(VENV)/.installed-dev ## pure logic only, seconds
	@$(BIN)/python tests/suites.py unit

lint: $(VENV)/.installed-dev ## ruff, mypy --strict, import-linter
	@$(BIN)/python tests/suites.py lint

test-faults: $(VENV)/.installed-dev ## seeded kills, a few rounds
	@$(BIN)/python tests/suites.py faults

soak: $(VENV)/.installed-dev ## some 200 kills, 40 minutes, by seed; SEEDS="31 32" takes up where it failed
	@CHAOS_SEEDS="$(or $(SEEDS),$(shell seq 21 48))" $(BIN)/pytest -v -x tests/integration/servers/test_equality.py -m fault

bench: $(VENV)/.installed-dev ## the figures of docs/benchmarks.md; DATA=folder adds those that need real data
	@$(BIN)/python -m tests.benchmarks $(if $(DATA),--data $(DATA))

servers-install: ## install Kafka, ClickHouse, Prometheus, Alertmanager (Debian, as root)
	@deploy/servers/install.sh

servers-up: $(VENV)/.installed ## start them on 9092, 9000/8123, 9090, 9093; their data in SERVERS=folder
	@$(BIN)/python deploy/servers/servers.py up $(SERVERS)

servers-down: $(VENV)/.installed ## stop exactly those
	@$(BIN)/python deploy/servers/servers.py down $(SERVERS)

schemas: $(VENV)/.installed-dev ## write schemas/json again from the structs
	@$(BIN)/python -m schemas.generate schemas/json

docs: $(VENV)/.installed-dev ## write the generated parts of the documents again
	@$(BIN)/python tests/reference.py --write

lock: $(UV) ## resolve the requirements again
	$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate pyproject.toml -o requirements.txt
	$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --group dev -c requirements.txt -o requirements-dev.txt

clean: ## take away what the other targets made
	rm -rf $(VENV) dist build *.egg-info

$(UV):
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name it with PYTHON=…")'
	$(PYTHON) -m venv $(VENV)
	for try in 1 2 3; do $(BIN)/python -m pip install -q uv==$(UV_VERSION) && break || sleep 5; done
	test -x $(UV) && touch $(UV)

$(VENV)/.dependencies: requirements.txt | $(UV)
	for try in 1 2 3; do $(UV) pip install -q --python $(BIN)/python --require-hashes -r requirements.txt && touch $@ && break || sleep 5; done
	test -e $@

$(VENV)/.dependencies-dev: requirements-dev.txt $(VENV)/.dependencies
	for try in 1 2 3; do $(UV) pip install -q --python $(BIN)/python --require-hashes -r requirements-dev.txt && touch $@ && break || sleep 5; done
	test -e $@

# The wheel is built and installed, not the folder: what users get is what runs here, SQL and lexicons included.
$(VENV)/.installed: $(SOURCES) $(VENV)/.dependencies
	rm -rf build dist *.egg-info
	for try in 1 2 3; do $(UV) build -q --wheel --python $(BIN)/python --out-dir dist . && break || sleep 5; done
	$(UV) pip install -q --python $(BIN)/python --no-deps --reinstall dist/*.whl
	rm -rf build *.egg-info
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed $(VENV)/.dependencies-dev
	touch $@
