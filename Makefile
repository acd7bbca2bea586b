# make demo: the main job, shown. make test: all tests. make unit: those that start no process and no thread, in less
# than a minute. make integration: those of one room that do. make spec: what the specification states, with the tests
# that show it. make test-runtimes: the real agent programs, from npm into build/, judged as the stand-ins are. Each makes
# its virtual environment first.
#
# Variables: PYTHON (3.11 or newer), VENV (where the environment lies), ARGS (handed on, e.g. make test ARGS=--long).

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
ARGS ?=
# Tests wait for processes, disks and each other for half of their time.
WORKERS := $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1); echo $$(( n < 4 ? 2 * n : 8 )))

CLAUDE := $(CURDIR)/build/runtimes/claude
CLAUDE_PACKAGE := @anthropic-ai/claude-code-$(shell uname -s | tr A-Z a-z)-$(shell uname -m | sed 's/x86_64/x64/;s/aarch64/arm64/')
CLAUDE_VERSION := 2.1.332
CODEX := $(CURDIR)/build/runtimes/codex
CODEX_VERSION := 0.171.0
# More real programs, if they are named: make test-runtimes ALSO="opencode gemini"
ALSO ?=
OPENCODE := $(CURDIR)/build/runtimes/opencode
OPENCODE_VERSION := 1.18.33
GEMINI := $(CURDIR)/build/runtimes/gemini
GEMINI_VERSION := 0.61.0
REAL_opencode := THRUM_REAL_OPENCODE=$(OPENCODE)/node_modules/.bin/opencode
REAL_gemini := THRUM_REAL_GEMINI=$(GEMINI)/node_modules/.bin/gemini

.PHONY: demo test test-runtimes unit integration spec check bench venv clean

demo: venv
	@$(BIN)/thrum demo $(ARGS)

test: venv
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile $(ARGS)

test-runtimes: venv $(CLAUDE)/.installed $(CODEX)/.installed $(ALSO:%=build/runtimes/%/.installed)
	THRUM_REAL_CLAUDE=$(CLAUDE)/node_modules/$(CLAUDE_PACKAGE)/claude THRUM_REAL_CODEX=$(CODEX)/node_modules/.bin/codex \
		$(foreach each,$(ALSO),$(REAL_$(each))) $(BIN)/python -m pytest tests/runtimes $(ARGS)

$(CLAUDE)/.installed: Makefile
	mkdir -p $(CLAUDE)
	echo '{}' > $(CLAUDE)/package.json
	npm install --silent --prefix $(CLAUDE) '$(CLAUDE_PACKAGE)@$(CLAUDE_VERSION)'
	@touch $@

$(CODEX)/.installed: Makefile
	mkdir -p $(CODEX)
	echo '{}' > $(CODEX)/package.json
	npm install --silent --prefix $(CODEX) '@openai/codex@$(CODEX_VERSION)'
	@touch $@

# OpenCode wants the package of its plugins beside each plugin: the lab puts it there, as there is no network.
build/runtimes/opencode/.installed: Makefile
	mkdir -p $(OPENCODE)/plugin
	echo '{}' > $(OPENCODE)/package.json
	echo '{}' > $(OPENCODE)/plugin/package.json
	npm install --silent --prefix $(OPENCODE) 'opencode-ai@$(OPENCODE_VERSION)'
	npm install --silent --prefix $(OPENCODE)/plugin '@opencode-ai/plugin@$(OPENCODE_VERSION)'
	@touch $@

build/runtimes/gemini/.installed: Makefile
	mkdir -p $(GEMINI)
	echo '{}' > $(GEMINI)/package.json
	npm install --silent --prefix $(GEMINI) '@google/gemini-cli@$(GEMINI_VERSION)'
	@touch $@

unit: venv
	$(BIN)/python -m pytest tests/unit $(ARGS)

integration: venv
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile tests/integration $(ARGS)

spec: venv
	@$(BIN)/python -m tests.spec $(ARGS)

check: venv
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-cache

bench: venv
	$(BIN)/python bench/run.py $(ARGS)

venv: $(INSTALLED)

# The package is installed editable: only its dependencies and its script can go stale.
$(INSTALLED): pyproject.toml scripts/thrum
	@test -n "$(PYTHON)" || { echo "thrum needs Python 3.11 or newer; name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,check]'
	$(BIN)/python -m compileall -q src
	@touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
