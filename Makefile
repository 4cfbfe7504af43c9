# Everything runs in .venv, made by the first Python of at least 3.11 that works. A target installs what it
# needs once; a second call installs nothing until pyproject.toml changes.

.PHONY: demo test test-slow test-all lint lab notebooks links pictures browser screenshot site results bench lines clean
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# A command may be found and yet not run (pyenv's shims), so each is tried.
WORKS := -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))'
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	if $$p $(WORKS) >/dev/null 2>&1; then echo $$p; break; fi; done)

demo: $(VENV)/.installed-lab
	$(BIN)/python notebooks/demo.py

# Every promise at reduced size. Most of the time is compiling, so XLA optimises nothing here.
test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

# The long proofs.
test-slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow

test-all: test test-slow

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

lab: $(VENV)/.installed-lab
	$(BIN)/jupyter lab notebooks

notebooks: $(VENV)/.installed-test
	$(BIN)/python notebooks/build.py
	$(BIN)/python notebooks/exercises.py

links: $(VENV)/.installed-test
	$(BIN)/python notebooks/links.py
	$(BIN)/python notebooks/exercises.py

# The README's two pictures.
pictures: $(VENV)/.installed
	$(BIN)/python docs/pictures.py

# Needs chromium (or google-chrome) on the PATH; says so, and skips, without.
browser: $(VENV)/.installed-browser
	$(BIN)/python -m pytest tests/browser

screenshot: $(VENV)/.installed-browser
	$(BIN)/python tests/browser/screenshot.py

site: $(VENV)/.installed-site
	$(BIN)/python -m sphinx -W --keep-going -q -d build/doctrees docs site
	@echo site/index.html

# The paper's tables into results/, some hours; single ones with NAMES="quality loss".
results: $(VENV)/.installed
	$(BIN)/python -m studies $(or $(NAMES),quality decoding weights adaptive standalone)

# Steps and texts on this machine into runs/timings, some minutes; peers needs the extra hf.
bench: $(VENV)/.installed
	$(BIN)/python -m studies $(or $(NAMES),steps startup training where-time-goes)

lines:
	@count() { printf '%-8s %6d\n' "$$1" $$(git ls-files "$$2" | xargs cat | wc -l); }; \
	count wheel 'tandem_edu/*.py'; count tests 'tests/*.py'; count studies 'studies/*.py'; count C 'tandem_edu/*.[ch]'

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
	$(PIP) -e '.[test]'
	touch $(VENV)/.installed $@

$(VENV)/.installed-lab: pyproject.toml | $(VENV)/.created
	$(PIP) -e '.[lab]'
	touch $(VENV)/.installed $@

$(VENV)/.installed-browser: $(VENV)/.installed-test $(VENV)/.installed-lab
	$(PIP) -e '.[browser]'
	touch $@

$(VENV)/.installed-site: pyproject.toml | $(VENV)/.created
	$(PIP) -e '.[site]'
	touch $(VENV)/.installed $@
