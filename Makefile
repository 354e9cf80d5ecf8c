# The verbs of this project; `make help` lists them. What they need they install (see scripts/setup.sh).
#
#   PYTHON=python3.12   the interpreter that `make setup` makes .venv with
#   ARGS="-k relay"     more arguments for the program behind the verb
#   PREFIX, DESTDIR     where `make install` puts things

SHELL = /bin/sh
.DEFAULT_GOAL = help
.DELETE_ON_ERROR:

ARGS ?=
PREFIX ?= /usr/local
DESTDIR ?=
BIN = .venv/bin

# The servers that the tests run privately. procps: kill, for the units' ExecReload; systemd: only its
# program systemd-analyze.
SERVERS = miltertest openssl postfix postfix-lmdb postgresql redis-server rspamd spamd spamc spamass-milter swaks \
	procps systemd

export PYTHON

help: ## list the verbs
	@sed -n 's/^\([a-z-]*\):.* ## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | awk -F '\t' '{ printf "make %-12s %s\n", $$1, $$2 }'

setup: ## make .venv with everything the project and its tools need; start nothing
	@scripts/setup.sh dev

run: ## run all daemons in the foreground on loopback, with a configuration and state in .mxweir/
	@scripts/setup.sh run
	@scripts/packages.sh "the spam scanner; mail is marked unscanned until then" spamd || true
	@exec $(BIN)/mxweir run --development .mxweir $(ARGS)

demo: ## show it: a private Postfix and spamd, a handful of real messages, and what became of each
	@scripts/setup.sh run
	@scripts/packages.sh "the demonstration" postfix postfix-lmdb spamd
	@exec $(BIN)/mxweir demo $(ARGS)

test: setup servers ## run all tests, those with real servers too
	@$(BIN)/pytest -n 2 --dist loadfile $(ARGS)

# Where they may not be installed, the tests that need them are skipped and say so; under CI
# (CI=true) nothing may be skipped, so that a green run is a whole one.
servers:
	@scripts/packages.sh "the tests with real servers" $(SERVERS) || test -z "$${CI:-}"

bench: ## measure the policy daemon against a no-op server, the milter against other milters
	@scripts/setup.sh run
	@scripts/packages.sh "the benchmark" gcc libc6-dev policyd-rate-limit postfwd postgresql postfix redis-server spamass-milter spamc
	@PYTHONPATH=bench $(BIN)/python -m mxweir_bench $(ARGS)

lint: setup ## style, format and the import contracts
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/lint-imports --no-logo

types: setup ## mypy, strict
	@$(BIN)/mypy

docs: setup ## check the documents: links, and what is generated from the code
	@$(BIN)/python scripts/check_documents.py

check: lint types docs test ## all that a change must pass

format: setup ## put the code into the project's format
	@$(BIN)/ruff check --fix-only --quiet
	@$(BIN)/ruff format

constraints: ## renew the pinned versions and their hashes (ARGS=PACKAGE: of that one only)
	@scripts/constraints.sh $(ARGS)

install: ## put the programs, configuration and units under PREFIX, /etc and DESTDIR
	@DESTDIR="$(DESTDIR)" PREFIX="$(PREFIX)" scripts/install.sh

clean: ## remove what these verbs made, but not what make install did
	@rm -rf .venv .mxweir build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find core policyd milter ops tests bench scripts -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help setup run demo test servers bench lint types docs check format constraints install clean
