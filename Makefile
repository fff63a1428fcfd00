# Ground Truth: every command of the book. Only make, git and python3 (3.10 to 3.13) are assumed;
# `make pdf` and `make test` fetch the rest, or say exactly what to type.
SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON  ?= python3
CHAPTER ?=
VENV    := .venv
BIN     := $(VENV)/bin
PIP     := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input
# Where to take torch from; for one without CUDA see "Setup" in README.md.
TORCH_INDEX ?=

# The one list of Debian and Ubuntu packages of each command
# (python3-venv only where python comes without it: Debian's own does)
VENV_DEBS    = $(shell $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv)
TEX_DEBS    := texlive-luatex texlive-latex-extra latexmk fonts-texgyre fonts-texgyre-math \
               fonts-lato fonts-jetbrains-mono fonts-dejavu-core fonts-symbola fonts-droid-fallback
FIGURE_DEBS := $(TEX_DEBS) poppler-utils
# (libatomic1 for the driver that playwright brings)
BROWSER_DEBS := chromium libatomic1
TEX_MAC     := brew install --cask mactex-no-gui font-lato font-jetbrains-mono font-dejavu

PAGES   := $(wildcard *.md chapters/*.ipynb) _config.yml _toc.yml references.bib
PRESS   := $(shell find book figures/rendered -type f -not -name '*.pyc' 2>/dev/null)
SOURCES := $(PAGES) $(PRESS) $(wildcard llm_core/*.py llm_core/*/*.py llm_core/*/*/*.py bench/*.py results/*.json results/*/*.json) $(wildcard .git/logs/HEAD)

# Install Debian packages where that asks no question, else say what to type.
# $(1) packages, $(2) a command that shows they are there, $(3) the line for macOS
define need
	if command -v dpkg-query >/dev/null; then
	  missing=""
	  for p in $(1); do
	    dpkg-query -W -f='$${db:Status-Status}' $$p 2>/dev/null | grep -qx installed || missing="$$missing $$p"
	  done
	  if [ -n "$$missing" ]; then
	    if [ "$$(id -u)" = 0 ]; then sudo=""
	    elif sudo -n true 2>/dev/null; then sudo="sudo"
	    else
	      echo "error: packages are missing and there are no rights to install them. Type:" >&2
	      echo "  sudo apt-get update && sudo apt-get install --no-install-recommends$$missing" >&2
	      exit 1
	    fi
	    echo "installing:$$missing"
	    $$sudo apt-get update -qq
	    $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null
	  fi
	else
	  for t in $(2); do
	    command -v $$t >/dev/null || { echo "error: $$t is missing. Type:  $(3)" >&2; exit 1; }
	  done
	fi
endef

.PHONY: help setup test check figures execute verify minillm html pdf epub lab lock clean doctor \
        browser venv-tools tex-tools figure-tools
help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' Makefile
	echo "CHAPTER=01 narrows execute, verify, test and pdf to one chapter, CHAPTER=a1 to an appendix."

setup: $(VENV)/everything  ## .venv with all of requirements.txt

html: _build/html/index.html  ## web pages from the committed outputs, into _build/html

pdf: tex-tools _build/pdf/ground-truth.pdf  ## the printed book, into _build/pdf
	@$(if $(CHAPTER),$(BIN)/python -m book cut $(CHAPTER),ls -l _build/pdf/ground-truth.pdf)

epub: _build/epub/ground-truth.epub  ## the book for e-readers, into _build/epub

test: $(VENV)/everything $(if $(CHAPTER),,_build/html/index.html)  ## unit tests, then every notebook under the profile ci
	@$(if $(wildcard chapters/$(CHAPTER)*.ipynb),,echo "error: no chapter '$(CHAPTER)' in chapters/; wanted are its two digits, as in CHAPTER=01, or an appendix, as in CHAPTER=a1" >&2; exit 1)
	$(if $(CHAPTER),,OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder tests)
	BOOK_PROFILE=ci $(BIN)/python -m book prepare $(CHAPTER)
	BOOK_PROFILE=ci LLM_CORE_OFFLINE=1 PYTHONHASHSEED=0 OMP_NUM_THREADS=1 TQDM_DISABLE=1 \
	  $(BIN)/python -m pytest -q -n 2 --nbmake --nbmake-timeout=90 $(wildcard chapters/$(CHAPTER)*.ipynb)

check: $(VENV)/everything  ## rules of code, notebooks, figures and references
	@$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	$(BIN)/python -m book check

figures: $(VENV)/everything figure-tools  ## draw figures/rendered anew
	@$(BIN)/python -m figures

execute: $(VENV)/everything  ## run chapters in fresh kernels and store what they print
	@$(BIN)/python -m book execute $(CHAPTER)

verify: $(VENV)/everything  ## run chapters again and compare with what is stored
	@$(BIN)/python -m book verify $(CHAPTER)

minillm: $(VENV)/everything  ## minillm.py anew: the listings of chapters 1 to 5 as one program
	@$(BIN)/python -m book minillm

lab: $(VENV)/everything  ## open the chapters in JupyterLab
	@$(BIN)/jupyter lab chapters

doctor:  ## what is missing on this machine and how to get it
	@$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m book doctor

browser:  ## a headless Chromium for the tests of the web pages
	@$(call need,$(BROWSER_DEBS),chromium,brew install --cask chromium)

lock: $(VENV)/everything  ## resolve constraints.txt anew from requirements.txt
	@$(PIP) uv
	sed '/^-e/d;/^-c/d' requirements.txt | $(BIN)/uv pip compile --quiet --universal \
	  --python-version 3.10 --fork-strategy fewest --no-annotate --no-header - | \
	  grep -vE '^(nvidia-|cuda-|triton)' > constraints.new
	{ head -n 1 constraints.txt; cat constraints.new; } > constraints.tmp
	mv constraints.tmp constraints.txt; rm constraints.new

clean:  ## remove what was built; keeps .venv and the committed outputs
	@rm -rf _build .pytest_cache .ruff_cache .mypy_cache .hypothesis

# ---------------------------------------------------------------- what the commands stand on
# The environment in two steps: the press alone (no torch), then everything. Each is rebuilt when
# its pins change, and the second holds the first.
venv-tools:
	@$(call need,$(VENV_DEBS),$(PYTHON),brew install python@3.11)
tex-tools:
	@$(call need,$(VENV_DEBS) $(TEX_DEBS),lualatex latexmk,$(TEX_MAC))
figure-tools:
	@$(call need,$(VENV_DEBS) $(FIGURE_DEBS),lualatex pdftocairo,$(TEX_MAC) && brew install poppler)

$(BIN)/python: | venv-tools
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || {
	  echo "error: $$($(PYTHON) --version) is not 3.10 to 3.13. Type:  make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/press: book/requirements.txt constraints.txt | $(BIN)/python
	@echo "installing the press into $(VENV)"
	$(PIP) -c constraints.txt -r book/requirements.txt
	touch $@

$(VENV)/everything: requirements.txt pyproject.toml $(VENV)/press | $(BIN)/python
	@echo "installing everything into $(VENV)"
	$(if $(TORCH_INDEX),$(PIP) --index-url $(TORCH_INDEX) "$$(grep '^torch==' requirements.txt)")
	$(PIP) -r requirements.txt
	touch $@

_build/html/index.html: $(SOURCES) | $(VENV)/press
	@$(BIN)/python -m book html

_build/epub/ground-truth.epub: $(SOURCES) | $(VENV)/press
	@$(BIN)/python -m book epub

_build/pdf/ground-truth.pdf: $(SOURCES) | $(VENV)/press
	@$(BIN)/python -m book pdf
