# make demo: set up, then train, test and draw the demo.
# make learn: set up, then train every system on the embedded digits, PVT beside ResNet, and print one table.
# make test: set up, then run all tests.  make test-quick: only those that are not slow.  make lint: run ruff.
# make site: set up, then build the documentation into build/site; warnings are errors.
# make test-classification: set up a second environment, .venv-classification, and run the tests that need mmpretrain.
# make test-stack STACK=onedl, or torch26: set up another stack in .venv-onedl, and run the tests of the models, of the
# weights and of the runner.
# What set-up does and which settings it knows: tools/setup.sh.
.PHONY: help setup demo learn test test-quick test-classification test-stack lint site
.DEFAULT_GOAL := help
export VENV ?= .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# mmengine imports it; requirements.txt pins the last setuptools that has it.
export PYTHONWARNINGS := ignore:pkg_resources is deprecated

help:
	@sed -n 1,8p Makefile | cut -c 3-

setup:
	@bash tools/setup.sh

demo: setup
	@python tools/demo.py

learn: setup
	@python -m paper.reproduce learn

# a thread for each of the two workers: with more than the cores have, small models take twice as long
test test-quick: export OMP_NUM_THREADS := 1
test: setup
	@python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-quick: setup
	@python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not slow'

# tests/conftest.py leaves them out where there is no mmpretrain
test-classification:
	@$(MAKE) --no-print-directory VENV=.venv-classification EXTRAS=classification setup
	@OMP_NUM_THREADS=1 .venv-classification/bin/python -m pytest -n 2 --dist loadfile tests/classification

test-stack:
	@$(MAKE) --no-print-directory VENV=.venv-$(or $(STACK),$(error STACK=onedl or STACK=torch26?)) setup
	@OMP_NUM_THREADS=1 .venv-$(STACK)/bin/python -m pytest -n 2 --dist loadfile -m 'not slow' tests/models tests/weights \
	    tests/engine/test_runner.py

lint: setup
	@ruff format --check .
	@ruff check .

site: setup
	@python tools/site.py
