# make run     the whole pipeline on the generated demo catalogue (DATA=… OUT=… for your own)
# make serve   factors, recommendations and similar songs from what the last run promoted
# make test    all tests that need nothing but this checkout, in minutes
# make test-long     those that take minutes each: more whole runs, several processes, soaks
# make test-engines  those that need Redis, Postgres, Java or Chromium (apt-get install redis-server postgresql openjdk-17-jre-headless chromium)
# make test TESTS="not docker"   the three at once, which is sooner done
# make test-docker   those that need Docker and the images
# make images  the images that the steps, the predictor and the transformer run in (needs Docker)
# make check   format, lint, types, import rules, the compiled pipeline
# make lock    resolve the dependencies again

PYTHON ?= python3.11
OUT ?= runs/demo
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
HTTP_PORT ?= 8080
GRPC_PORT ?= 8081

# Threads that spin while they wait are many times slower on a machine that does something else.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: run serve test test-long test-engines test-docker images check format lock clean environment
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

environment: $(READY)

# The environment is made from the lock when it is absent or stale. uv itself comes from the lock
# too, by its hash, through the pip that every Python carries.
$(READY): requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v == (3, 11) else "needledrop needs Python 3.11, got %d.%d; call make PYTHON=/path/to/python3.11" % v)'
	$(PYTHON) -m venv $(VENV)
	awk '/^uv==/{found=1} found{print} found && !/\\$$/{exit}' requirements.lock > $(VENV)/uv.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $(VENV)/uv.lock
	$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	@echo ../../../.. > $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/needledrop.pth
	@touch $@

ifdef DATA
run: $(READY)
else
DATA := $(OUT)/data
run: $(READY) demo-catalogue
endif
	@$(BIN)/python -m pipelines run train --data "$(DATA)" --out "$(OUT)" $(if $(CONFIG),--config "$(CONFIG)") || [ $$? -eq 3 ]
	@$(BIN)/python -m serving try --registry "$(OUT)/registry" --data "$(DATA)"

# With the clips at hand, the page at / plays them.
SOUND = $(if $(wildcard $(DATA)/audio),--audio "$(DATA)/audio" $(patsubst %,--tracks "%",$(firstword $(wildcard $(DATA)/tracks.*))))

.PHONY: demo-catalogue
demo-catalogue: $(READY)
	@$(BIN)/python -m needledrop.demo "$(DATA)"

serve: $(READY)
	@exec $(BIN)/python -m serving --registry "$(OUT)/registry" --store "$(OUT)/store" $(SOUND) --http-port $(HTTP_PORT) --grpc-port $(GRPC_PORT)

# BuildKit is needed: either `docker buildx` is there, or the client has it built in (as Debian's).
DOCKER ?= docker
BASE ?= python:3.11-slim
TAG ?= 0.1.0
REVISION := $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
images:
	for image in data train spark serve; do \
	  target=steps; [ $$image != serve ] || target=serve; \
	  DOCKER_BUILDKIT=1 $(DOCKER) build --network=host --file infra/images/Dockerfile \
	    --build-arg BASE=$(BASE) --build-arg REVISION=$(REVISION) --build-arg IMAGE=$$image \
	    --target $$target --tag needledrop-$$image:$(TAG) . || exit 1; \
	done

# Tests that start programs of the machine are marked with their kind.
TESTS ?= not long and not engines and not docker
test: $(READY)
	$(BIN)/python -m pytest -m "$(TESTS)"

test-long: $(READY)
	$(BIN)/python -m pytest -m "long and not engines"

test-engines: $(READY)
	$(BIN)/python -m pytest -m engines

test-docker: $(READY)
	$(BIN)/python -m pytest -n 0 -m docker

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pipelines compile --check

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(READY)
	$(BIN)/uv pip compile --quiet --generate-hashes --no-header --no-emit-index-url \
	  --python-version 3.11 --group dev pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) runs
