# sliceloop: `make demo` runs the whole loop on this machine, `make test` runs checks and tests. Both set up .venv first.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# Where torch comes from. Empty: pip's own index. On Linux PyPI's torch brings gigabytes of CUDA; for the CPU build say
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
# and for another CUDA version the index that pytorch.org names.
TORCH_INDEX ?=
DEMO_ARGS ?=
BENCH_ARGS ?=
PIPELINE_ARGS ?=
UPDATE_ARGS ?=
CHAOS_SEEDS ?= 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20
CHAOS_FUZZ ?= 1000000
# Two files at a time. The others are about connections and their times, and go one after another.
APART := tests/training tests/model tests/protocol tests/screen_camera tests/locate tests/photometry tests/intake \
	tests/capture_bench tests/dashboard tests/command tests/worker tests/cloud tests/chaos tests/pipeline \
	tests/update_bench tests/webcam tests/test_phantom.py tests/test_readme.py tests/e2e/test_demo_ends.py \
	$(wildcard $(patsubst %,tests/edge/test_%.py,outbox* update* probation* model_slot attacks power_cuts structure trial))

.PHONY: setup demo test check chaos bench clean
setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch==2.13.0 torchvision==0.28.0 $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/sliceloop demo $(DEMO_ARGS)

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check
	$(BIN)/python -m pytest -n 2 --dist loadfile $(APART)
	$(BIN)/python -m pytest $(addprefix --ignore=,$(APART))

bench: setup
	$(BIN)/sliceloop bench training $(BENCH_ARGS)
	$(BIN)/sliceloop bench pipeline $(PIPELINE_ARGS)
	$(BIN)/sliceloop bench update $(UPDATE_ARGS)
	$(BIN)/sliceloop bench capture --phantoms 60

chaos: setup
	for seed in $(CHAOS_SEEDS); do $(BIN)/sliceloop chaos --seed $$seed --json chaos-data/seed-$$seed.json || exit 1; done
	$(BIN)/sliceloop chaos --fuzz $(CHAOS_FUZZ) --json chaos-data/fuzz.json
	$(BIN)/python -m pytest -m chaos --timeout 900

clean:
	rm -rf $(VENV) demo-data chaos-data bench-data build *.egg-info
