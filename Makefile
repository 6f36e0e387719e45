# Two commands: `make demo` shows what interbasis does, `make test` runs every check. Each sets up .venv by itself.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

export PYTHONDONTWRITEBYTECODE =  # or each process compiles all modules anew

.PHONY: demo test check clean

demo: $(STAMP)
	$(BIN)/interbasis demo

test: check
	$(BIN)/python -m pytest -n auto --dist worksteal

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A strict editable install links each file, so it is made again whenever a file has come or gone.
$(STAMP): pyproject.toml constraints.txt $(shell find package analysis service migrations -type d -not -name __pycache__)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "interbasis needs Python 3.11 or newer, this is " + sys.version)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt --config-settings editable_mode=strict -e '.[test]'
	touch $@

clean:
	rm -rf .venv build *.egg-info
