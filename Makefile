# make serve   install the service and serve the shipped models
# make test    install everything and run every test
# make check   format, lint and types; make format mends what can be mended
# make lock    compute requirements/*.txt anew from pyproject.toml

PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
# onnxruntime and onnxruntime-gpu exclude each other: one environment holds one of them.
FLAVOUR ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
SERVE := .venv-serve
DEV := .venv
TORCH := torch==2.13.0

.PHONY: serve test check format lock clean

serve: $(SERVE)/$(FLAVOUR).stamp
	$(SERVE)/bin/dtn serve --host $(HOST) --port $(PORT)

test: $(DEV)/stamp
	$(DEV)/bin/python -m pytest

check: $(DEV)/stamp
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/ruff check .
	$(DEV)/bin/mypy

format: $(DEV)/stamp
	$(DEV)/bin/ruff format .
	$(DEV)/bin/ruff check --fix .

define environment
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	rm -rf $(1)
	$(PYTHON) -m venv $(1)
	$(1)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $(2)
endef
INSTALL := pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .

$(SERVE)/$(FLAVOUR).stamp: requirements/$(FLAVOUR).txt pyproject.toml
	$(call environment,$(SERVE),$<)
	$(SERVE)/bin/$(INSTALL)
	touch $@

$(DEV)/stamp: requirements/dev.txt pyproject.toml
	$(call environment,$(DEV),$<)
	$(DEV)/bin/pip install --quiet --disable-pip-version-check $(TORCH)
	$(DEV)/bin/$(INSTALL)
	touch $@

COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header --no-annotate pyproject.toml requirements/build.in

lock:
	$(COMPILE) --extra cpu -o requirements/cpu.txt
	$(COMPILE) --extra gpu -o requirements/gpu.txt
	$(COMPILE) requirements/torch.in --override requirements/no-torch.in \
		--extra cpu --extra test --extra training -o requirements/dev.txt

clean:
	rm -rf $(SERVE) $(DEV) build *.egg-info
