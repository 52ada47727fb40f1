# make demo   the whole chain on demo posters, results in runs/
# make test   every chapter, every job, and the tests
# make app    a web page on this machine that takes posters and shows their genres: make app MODEL=runs/full/model.ts
# make book   the chapters with their outputs as a site in _book/; a few minutes
# make tidy   list what could be removed from runs/, and remove it after asking
# make rules  the rules of workflow/Snakefile as a picture; needs Snakemake and Graphviz's dot
# make bench  the benchmark against fastai, torch, timm and Lightning; an hour or more on two CPU cores
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.PHONY: demo test book bench install lab app tidy rules

PYTHON ?= python3
VENV ?= .venv
PORT ?= 8866
MODEL ?=
EXAMPLES ?=
PEERS := .venv-peers
BIN := $(abspath $(VENV))/bin
INSTALLED := $(VENV)/.installed

export PATH := $(BIN):$(PATH)
export NO_ALBUMENTATIONS_UPDATE := 1

install: $(INSTALLED)

$(INSTALLED): settings.ini setup.py pyproject.toml
	@echo 'Installing into $(VENV); a few minutes'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

# demo.yaml, given last, shrinks each stage to what two CPU cores do in a minute
demo: install
	@unset ROOT_PATH RUNS_PATH # demo posters, and results in runs/, whatever else is set
	number=0
	stage() {
		number=$$((number + 1)) began=$$SECONDS
		echo "== stage $$number of 7: $$2"
		papermill --log-level WARNING "nbs/$$1.ipynb" "runs/$$2.ipynb" "$${@:3}"
		echo "   $$((SECONDS - began)) s"
	}
	started=$$SECONDS
	stage lr_find demo_lrf_head -f params/lrf_head.yaml -f params/demo.yaml -p experiment_name demo_lrf_head
	stage train demo_head -f params/head.yaml -f params/demo.yaml -p experiment_name demo_head
	stage lr_find demo_lrf_full -f params/lrf_full.yaml -f params/demo.yaml -p experiment_name demo_lrf_full -p checkpoint_name demo_head
	stage train demo_full -f params/full.yaml -f params/demo.yaml -p experiment_name demo_full -p checkpoint_name demo_head
	stage swa demo_full_swa -p experiment_name demo_full
	stage to_torchscript demo_full_ts -p experiment_name demo_full
	stage predict demo_predict -p model runs/demo_full/model.ts -p images runs/demo_posters_600/Images -p output runs/demo_full/predictions.csv -p overwrite true
	python -c "from postergenre.report.comparison import printed, results_table; print(printed(results_table(['demo_lrf_head', 'demo_head', 'demo_lrf_full', 'demo_full'])))"
	python -c "import sys; from postergenre.report.comparison import shortfall; sys.exit(shortfall('demo_full', 0.8, 0.3))"
	echo "The demo took $$((SECONDS - started)) s. Results: runs/demo_*; executed notebooks: runs/demo_*.ipynb"

# a temporary runs folder, so that each test run starts from nothing; three notebooks or test files at a time, with one thread
# each, because many wait for a process or a disk; tests/conftest.py puts the long files first
test: install
	@export RUNS_PATH=$$(mktemp -d) OMP_NUM_THREADS=1
	trap 'rm -rf "$$RUNS_PATH"' EXIT
	unset ROOT_PATH
	nbdev_test --n_workers 3 2>&1 | tee "$$RUNS_PATH/nbdev_test.log"
	grep -q 'Success' "$$RUNS_PATH/nbdev_test.log" # it exits 0 where it found no notebook at all
	python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

# nothing is executed or fetched; a warning, such as a link to nowhere, is an error
book: $(VENV)/.installed-book
	@python book/prepare.py build/book/source
	python -m sphinx --quiet --fail-on-warning --keep-going --jobs 2 --doctree-dir build/book/doctrees --conf-dir book \
		build/book/source build/book/site
	rm -rf _book
	cp -r build/book/site _book
	echo 'The book is in _book/; open _book/index.html'

$(VENV)/.installed-book: $(INSTALLED)
	@echo 'Installing Sphinx into $(VENV)'
	$(BIN)/python -m pip install --quiet --editable '.[dev,book]'
	touch $@

# fastai and Lightning have an environment of their own; without ROOT_PATH all are measured on demo posters
bench: install $(PEERS)/.installed
	@papermill --log-output --no-progress-bar nbs/bench.ipynb runs/bench.ipynb -f params/bench.yaml

$(PEERS)/.installed: bench/peers.txt
	@echo "Installing the benchmark's competitors into $(PEERS); a few minutes"
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --upgrade pip
	$(PEERS)/bin/python -m pip install --quiet -r bench/peers.txt
	touch $@

rules: install
	@snakemake --quiet all --rulegraph --config images=FOLDER | sed -n '/^digraph/,/^}/p' | dot -Tsvg -o nbs/pictures/rules.svg
	snakemake --quiet all --rulegraph --config sweep=params/sweep_example.yaml -- sweep | sed -n '/^digraph/,/^}/p' \
		| dot -Tsvg -o nbs/pictures/sweep_rules.svg

tidy: install
	@python -m postergenre tidy

lab: install
	jupyter lab --ServerApp.ip=127.0.0.1 --ServerApp.tornado_settings='{"websocket_max_message_size": 536870912}' \
		--ServerApp.root_dir='$(CURDIR)' --LabApp.default_url=/lab/tree/nbs/index.ipynb

# voila.json says what is served and to whom; each visitor has a kernel of their own, and the next one is kept warm.
# Without MODEL, a finished run is chosen on the page
app: install
	@given=()
	there() { if ! realpath -e "$$2" 2>/dev/null; then echo "$$1: there is no $$2. $$3" >&2; exit 1; fi; }
	if [ -n '$(MODEL)' ]; then
		model=$$(there MODEL '$(MODEL)' 'Make a model with nbs/to_torchscript.ipynb, or correct the path.')
		given+=(-p model "$$model")
	fi
	if [ -n '$(EXAMPLES)' ]; then
		examples=$$(there EXAMPLES '$(EXAMPLES)' 'Give a folder of pictures.')
		given+=(-p examples "$$examples")
	fi
	page=runs/try_it_$(PORT).ipynb
	papermill --prepare-only --log-level WARNING nbs/try_it.ipynb $$page "$${given[@]}"
	voila $$page --no-browser --port=$(PORT)
