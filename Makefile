# make serve   install the service and serve the shipped models
# make test    install everything and run every test
# make check   format, lint, types, fitting versions; make format mends what can be mended
# make programs  install Debian's programs that tests drive: a browser, a balancer, a database
# make audit   ask PyPI whether a locked version has a known vulnerability
# make bench   race the service against the installed peers; benchmarks/serving/README.md
# make lock    compute requirements/*.txt anew from pyproject.toml

PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
# onnxruntime and onnxruntime-gpu exclude each other: one environment holds one of them.
FLAVOUR ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
SERVE := .venv-serve
DEV := .venv
AUDIT := .venv-audit
TORCH := torch==2.13.0

.PHONY: serve test programs check format bench audit lock clean

serve: $(SERVE)/$(FLAVOUR).stamp
	$(SERVE)/bin/dtn serve --host $(HOST) --port $(PORT)

test: $(DEV)/stamp
	$(DEV)/bin/python -m pytest

# Without them the tests of the page, of replicas and of PostgreSQL are skipped, and say so.
PROGRAMS := chromium haproxy postgresql prometheus iproute2 wrk
programs:
	dpkg --status $(PROGRAMS) >/dev/null 2>&1 || { apt-get update --quiet=2 && \
		DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --yes \
		--no-install-recommends $(PROGRAMS) >/dev/null; }

check: $(DEV)/stamp
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/ruff check .
	$(DEV)/bin/mypy
	$(DEV)/bin/pip check

format: $(DEV)/stamp
	$(DEV)/bin/ruff format .
	$(DEV)/bin/ruff check --fix .

bench: $(DEV)/stamp
	$(DEV)/bin/dtn bench

# Not a part of `check`: it asks pypi.org's JSON API, which mirrors of the package index do not
# have, and what is known today must not fail a change of yesterday. Run it daily where the
# network is open. --strict: a package that nobody knows anything of is a failure, not a pass.
audit: $(AUDIT)/stamp
	$(AUDIT)/bin/pip-audit --strict --require-hashes --disable-pip -r requirements/cpu.txt

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

# Apart from the others: an auditor's own packages are none of the service's.
$(AUDIT)/stamp:
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/pip install --quiet --disable-pip-version-check "pip-audit>=2.9,<3"
	touch $@

$(DEV)/stamp: requirements/dev.txt pyproject.toml
	$(call environment,$(DEV),$<)
	$(DEV)/bin/pip install --quiet --disable-pip-version-check $(TORCH)
	$(DEV)/bin/$(INSTALL)
	touch $@

COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header --no-annotate pyproject.toml requirements/build.in

lock:
	$(COMPILE) --extra cpu --extra postgres -o requirements/cpu.txt
	$(COMPILE) --extra gpu --extra postgres -o requirements/gpu.txt
	$(COMPILE) requirements/torch.in --override requirements/no-torch.in \
		--extra cpu --extra test --extra training -o requirements/dev.txt
	$(COMPILE) requirements/torch.in --override requirements/no-torch.in \
		--extra cpu --extra training -o requirements/training.txt

clean:
	rm -rf $(SERVE) $(DEV) $(AUDIT) build *.egg-info
