# Two commands set everything up: `make demo` and `make test`. The environment is made on first use in .venv.
PYTHON ?= python3
BIN := .venv/bin
# The tests start hundreds of interpreters: where bytecode must not be kept, each compiles the project anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-long test-slow lint docs wheel clean

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# A small real study: Adam against two variants, five seeds each, on CartPole; a few minutes.
demo: .venv/installed
	$(BIN)/alphagrad run -m recipe=dqn_cartpole optimizer=adam,alphagrad,sqrt_dim 'seed=range(5)' hydra/launcher=stacked \
	    recipe.total_steps=60000 recipe.learning_starts=2000 recipe.eval_every=10000
	$(BIN)/alphagrad report --plot outputs/demo.png
	@echo
	@echo "Every run's curves, settings and files:   $(BIN)/alphagrad ui"

test: lint docs wheel
	$(BIN)/pytest --numprocesses 2 --dist worksteal

# Seconds long each, end to end; what CI runs after `make test`.
test-long: .venv/installed
	$(BIN)/pytest --numprocesses 2 --dist worksteal -m "long and not slow"

# Minutes long each, and none of the others; Ray, PostgreSQL and SLURM for real; without root and Debian's packages the tests of the last two say why they skip.
test-slow: .venv/installed-all
	./.ci/services
	$(BIN)/pytest -m slow

.venv/installed-all: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,ray,postgresql,frameworks]'
	touch $@

lint: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# The site, in docs/_build; a link that leads nowhere, or a docstring that cannot be read, is an error.
docs: .venv/installed
	$(BIN)/python -m sphinx -W --keep-going --quiet docs docs/_build

# A wheel installed into a clean environment outside the checkout must train a run.
wheel: .venv/installed
	./.ci/wheel

clean:
	rm -rf .venv build dist docs/_build docs/generated .mypy_cache .ruff_cache .pytest_cache *.egg-info
