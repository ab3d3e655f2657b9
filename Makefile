# `make app` opens the page, `make test` runs every check, `make torture` breaks sound files by the thousand and tries them,
# `make fuzz` looks for worse ones by what they reach, `make screenshots` takes pictures of the page; each prepares .venv
# first where it is missing or out of date.

VENV := .venv
BIN := $(VENV)/bin
# The first interpreter of the supported versions that really starts (a version manager's shim may not).
PYTHON ?= $(shell for p in python3.12 python3.11 python3.10 python3 python; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' >/dev/null 2>&1 && echo $$p && break; done)

.PHONY: app test torture fuzz lowest newest lock audit screenshots format clean

app: $(VENV)/.app
	$(BIN)/python app.py --open $(ARGS)

test: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal $(ARGS)

torture: $(VENV)/.dev
	$(BIN)/python benchmarks/torture/run.py $(ARGS)

# A finding fails, and is kept in .fuzz, where the next run begins with it.
FUZZ_SECONDS ?= 60
fuzz: $(VENV)/.dev
	@if $(BIN)/python -m pip install --quiet -r requirements-fuzz.txt; then \
		$(BIN)/python benchmarks/torture/fuzz.py .fuzz -max_total_time=$(FUZZ_SECONDS) $(ARGS); \
	else \
		echo "NOT FUZZED: atheris cannot be installed here. It is for Linux and the versions of Python that it names." >&2; \
	fi

# The oldest and the newest versions that requirements*.txt allow, in an environment of its own: another 6 GB.
lowest: RESOLUTION = lowest-direct
newest: RESOLUTION = highest
lowest newest:
	$(PYTHON) -m venv --clear $(VENV)-$@
	$(VENV)-$@/bin/python -m pip install --quiet uv
	$(VENV)-$@/bin/uv pip install --python $(VENV)-$@/bin/python --resolution $(RESOLUTION) -r requirements-dev.txt
	$(VENV)-$@/bin/python -m pytest --numprocesses auto --dist worksteal $(ARGS)

# What is installed here and in the image, by Python one version of each package with the hashes of its files: the image
# has those that were tested.
LOCK = $(BIN)/uv pip compile --universal --python-version 3.10 --generate-hashes --no-annotate --quiet \
	--custom-compile-command "make lock"
lock: $(VENV)/pyvenv.cfg
	$(BIN)/python -m pip install --quiet uv
	$(LOCK) --upgrade --output-file requirements-dev.lock requirements-dev.txt
	$(LOCK) --upgrade --output-file requirements.lock --constraint requirements-dev.lock requirements.txt

# Known faults in the versions of the image, whose Python may be another; it asks the database of the Python Packaging
# Authority.
audit: $(VENV)/pyvenv.cfg
	$(BIN)/python -m pip install --quiet pip-audit uv
	$(BIN)/uv pip compile --quiet --python-version 3.12 --generate-hashes --constraint requirements.lock \
		--output-file $(VENV)/image.txt requirements.txt
	$(BIN)/pip-audit --strict --requirement $(VENV)/image.txt --require-hashes --disable-pip

screenshots: $(VENV)/.dev
	$(BIN)/python benchmarks/screenshots.py

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-newest .gradio .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Made anew where its Python has gone, is of another version, or has no pip.
ifneq ($(shell $(BIN)/python -m pip --version 2>/dev/null | grep -c '(python 3\.1[0-2])'),1)
.PHONY: $(VENV)/pyvenv.cfg
endif
$(VENV)/pyvenv.cfg:
	@test -n "$(PYTHON)" || { echo "Python 3.10, 3.11 or 3.12 with venv is needed (on Debian: apt install python3-venv)." >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)

$(VENV)/.app: requirements.lock $(VENV)/pyvenv.cfg
	@echo "Installing into $(VENV): about 5.7 GB, a few minutes ..."
	$(BIN)/python -m pip install --quiet -r $<
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/pyvenv.cfg
	@echo "Installing into $(VENV): about 5.7 GB, a few minutes ..."
	$(BIN)/python -m pip install --quiet -r $<
	@touch $@ $(VENV)/.app
