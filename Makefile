# `make` alone lists what there is. demo and test set up .venv first; the second time that takes no time.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo test test-long check record results lint

PYTHON := .venv/bin/python
# CH=3 means the folder 3.quickstart. The other chapters are listed when there is no such folder.
CHAPTERS := $(shell ls -d [0-9]*.*/demo.py 2>/dev/null | sort -n | xargs -rn1 dirname)
CHAPTER := $(filter $(CH).%,$(CHAPTERS))$(filter $(CH),$(CHAPTERS))

# `make record CH=3 PYTHON=python3` uses that Python as it is, and installs nothing.
ifeq ($(origin PYTHON),command line)
export PYTHONPATH := $(CURDIR)
setup: ;
else
SYSTEM_PYTHON := $(shell command -v python3 || command -v python3.11 || command -v python3.12 || command -v python3.13)
setup:
	@test -n "$(SYSTEM_PYTHON)" || { echo "There is no python3 here. Fix: sudo apt install python3.11 python3.11-venv" >&2; exit 1; }
	@$(SYSTEM_PYTHON) -m common.install
endif

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo "Chapters here: $(CHAPTERS)"

demo: setup ## every chapter's demo in its short form; CH=3 runs one in full, ARGS='--present' gives it options
ifdef CH
	@$(call need_chapter)
	@$(PYTHON) $(CHAPTER)/demo.py $(ARGS)
else
	@$(PYTHON) -m common.tour $(ARGS)
endif

test: setup ## the tests that any machine can run; ARGS='-k install' chooses
	@$(PYTHON) -m pytest -n auto --dist loadgroup --no-loadscope-reorder $(ARGS)

test-long: setup ## the tests that take longer; writes tests/long-report.txt
	@{ date -u +%F; uname -srm; $(PYTHON) -m pytest -m long --timeout 3600 $(ARGS); } 2>&1 | tee tests/long-report.txt

check: setup ## CH=3: check your own exercises.py of that chapter
	@$(call need_chapter)
	@$(PYTHON) -m common.check $(CH)

record: setup ## CH=3: measure that chapter on this machine, into its results/
	@$(call need_chapter)
	@$(PYTHON) $(CHAPTER)/demo.py --save $(ARGS)

results: setup ## render results.md, the figures and the lessons' tables from the results files
	@$(PYTHON) -m common.render $(ARGS)

lint: setup ## ruff
	@$(PYTHON) -m ruff check .

need_chapter = test -d "$(CHAPTER)" || { echo "There is no chapter '$(CH)'. Say one of: $(foreach c,$(CHAPTERS),CH=$(firstword $(subst ., ,$(c))) ($(c)))" >&2; exit 2; }
