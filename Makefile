# On a fresh Debian 12 a person types `make demo` or `make test`; everything is installed into .venv/ of this clone.
.DEFAULT_GOAL := help
.PHONY: help demo test chaincode torture bench bench-orthanc caliper consortium consortium-down demo-consortium demo-orthanc screenshots lint types lock clean

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
SOURCES := orthanc_ledger dicom_scp

# Where Go is (scripts/go-toolchain); of all recipes, as nothing else is in there. Not what an activated .venv/ puts in
# front: its storescu is pynetdicom's, not dcmtk's.
export PATH := $(CURDIR)/.venv/tools:$(subst $(CURDIR)/.venv/bin:,,$(PATH))

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' Makefile | expand -t 16

demo: $(INSTALLED) ## show one scan's whole way on this machine, a minute at most
	$(BIN)/orthanc-ledger demo

test: $(INSTALLED) lint types chaincode ## lint, types and all tests; the Debian packages they need are installed when root
	scripts/debian-packages dcmtk:storescu strace:strace orthanc:Orthanc debootstrap:debootstrap chromium:chromium \
		orthanc-python:/usr/share/orthanc/plugins/libOrthancPython.so \
		orthanc-dicomweb:/usr/share/orthanc/plugins/libOrthancDicomWeb.so
	$(BIN)/python -m orthanc_ledger.consortium build
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

chaincode: $(INSTALLED) ## vet, staticcheck and tests of the chaincode
	scripts/go-toolchain
	cd chaincode && test -z "$$(gofmt -l .)" && go vet ./... && go tool staticcheck ./... && go test ./...

torture: $(INSTALLED) ## kill a process of a node under load, ROUNDS times (100; 1000 take most of an hour), and check everything
	scripts/debian-packages dcmtk:storescp
	PYTHONPATH=. $(BIN)/python tests/torture.py $(or $(ROUNDS),100) $(SEED)

bench: $(INSTALLED) ## speed beside other SCPs, twenty minutes, into bench/RESULTS.md; QUICK=1 takes three minutes and prints only
	scripts/debian-packages dcmtk:storescp orthanc:Orthanc
	$(BIN)/python -m bench $(if $(QUICK),--quick)

bench-orthanc: $(INSTALLED) ## what the plugin costs Orthanc, a quarter of an hour, into bench/ORTHANC.md
	scripts/debian-packages dcmtk:dcmsend orthanc:Orthanc \
		orthanc-python:/usr/share/orthanc/plugins/libOrthancPython.so
	$(BIN)/python -m bench.plugin --out bench/ORTHANC.md

caliper: $(INSTALLED) ## the contract on Fabric: Hyperledger Caliper, batches, growth; twenty minutes, into bench/FABRIC.md
	scripts/debian-packages nodejs:node npm:npm dcmtk:dcmsend
	scripts/go-toolchain
	npm ci --prefix bench/caliper --no-audit --no-fund --loglevel error
	$(BIN)/python -m bench.caliper --out bench/FABRIC.md

consortium: $(INSTALLED) ## start a network of Hyperledger Fabric and Kubo on this machine, in .consortium/ (Go builds it the first time, some minutes)
	scripts/go-toolchain
	$(BIN)/python -m orthanc_ledger.consortium up

consortium-down: $(INSTALLED) ## end that network's servers; what is on its ledger stays
	$(BIN)/python -m orthanc_ledger.consortium down

demo-consortium: $(INSTALLED) ## the demo on such a network, started for it and gone afterwards, two minutes at most
	$(BIN)/orthanc-ledger demo --consortium

demo-orthanc: $(INSTALLED) ## the demo with the plugin in this machine's Orthanc, a minute at most
	scripts/debian-packages orthanc:Orthanc orthanc-python:/usr/share/orthanc/plugins/libOrthancPython.so
	$(BIN)/orthanc-ledger demo --orthanc

screenshots: $(INSTALLED) ## panel and console in Chromium, into build/screenshots/; those of the README anew
	scripts/debian-packages chromium:chromium optipng:optipng
	ORTHANC_LEDGER_SCREENSHOTS=build/screenshots $(BIN)/python -m pytest -q tests/in_orthanc/test_story.py
	mkdir -p docs/images
	cp build/screenshots/story-1.12.7-panel.png docs/images/panel.png
	cp build/screenshots/story-1.12.7-sign.png docs/images/console.png
	optipng -quiet -o5 docs/images/panel.png docs/images/console.png

lint: $(INSTALLED) ## lint rules and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED) ## mypy --strict over the sources
	$(BIN)/mypy $(SOURCES)

# A new lock or new metadata installs again; otherwise a warm .venv/ is used as it is.
$(INSTALLED): requirements/dev.txt setup.cfg pyproject.toml
	scripts/make-venv $(PYTHON)
	touch $@

lock: $(INSTALLED) ## resolve setup.cfg's ranges anew into requirements/dev.txt
	scripts/lock

clean: ## remove .venv/ and everything generated
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
