# Everything runs in .venv, made by the first Python of at least 3.11 that works. A target installs what
# it needs once; a second call installs nothing until pyproject.toml changes.

.PHONY: demo test test-quick lint lab notebooks links browser screenshot site clean
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# A command may be found and yet not run (pyenv's shims), so each is tried.
WORKS := -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))'
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	if $$p $(WORKS) >/dev/null 2>&1; then echo $$p; break; fi; done)

demo: $(VENV)/.installed
	$(BIN)/tandem-edu demo

# In two runs, because compiling is most of the quick tests' time: there XLA optimises nothing.
test: test-quick
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow

test-quick: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

lab: $(VENV)/.installed-test
	$(BIN)/jupyter lab notebooks

notebooks: $(VENV)/.installed-test
	$(BIN)/python notebooks/build.py
	$(BIN)/python notebooks/exercises.py

links: $(VENV)/.installed-test
	$(BIN)/python notebooks/links.py
	$(BIN)/python notebooks/exercises.py

# Needs chromium (or google-chrome) on the PATH; says so, and skips, without.
browser: $(VENV)/.installed-browser
	$(BIN)/python -m pytest tests/browser

screenshot: $(VENV)/.installed-browser
	$(BIN)/python tests/browser/screenshot.py

site: $(VENV)/.installed-site
	$(BIN)/python -m sphinx -W --keep-going -q -d build/doctrees docs site
	@echo site/index.html

clean:
	rm -rf $(VENV)

$(VENV)/.created:
	$(if $(PYTHON),,$(error found no Python of at least 3.11 with venv: install one, or say make PYTHON=/path/to/python3))
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.installed: pyproject.toml | $(VENV)/.created
	$(PIP) -e .
	touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/.created
	$(PIP) -e '.[test,lab]'
	touch $(VENV)/.installed $@

$(VENV)/.installed-browser: $(VENV)/.installed-test
	$(PIP) -e '.[browser]'
	touch $@

$(VENV)/.installed-site: pyproject.toml | $(VENV)/.created
	$(PIP) -e '.[site]'
	touch $(VENV)/.installed $@
