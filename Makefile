# The targets that people use: make run, make test. The rest: make help.

GO      ?= go
BIN     := bin
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -X github.com/osds-io/osds/internal/version.Version=$(VERSION)
PROGS   := osdslet osdsdock osdsctl
# The suites of `make test-real`. There is lvm besides; lvm-short is the part of it
# that does not take long: guests are emulated.
SUITES  ?= e2e chaos tgt ceph
# Ceph is built in where librbd's headers are (librbd-dev, librados-dev). The second
# tag tells go-ceph which release they are of; none means a recent one.
CEPH_HEADER ?= $(firstword $(wildcard /usr/include/rbd/librbd.h /usr/local/include/rbd/librbd.h))
CEPH_MINOR  := $(if $(CEPH_HEADER),$(shell sed -n 's/^\#define LIBRBD_VER_MINOR *//p' $(CEPH_HEADER)))
CEPH_TAGS   := $(if $(CEPH_MINOR),ceph ceph_preview $(if $(filter 10 11 12 13 14 15,$(CEPH_MINOR)),octopus,$(if $(filter 16,$(CEPH_MINOR)),pacific,$(if $(filter 17,$(CEPH_MINOR)),quincy))))
TAGS    ?= $(strip $(CEPH_TAGS))
PREFIX  ?= /usr/local
DESTDIR ?=

.PHONY: help build run test lint test-unit test-real test-ceph test-ceph-run fuzz-short bench bench-osds bench-lvm proto docs install clean

help:
	@echo 'make run        build, start osdslet and osdsdock here, say what to try; Ctrl-C stops them'
	@echo 'make test       lint, and the unit tests with the race detector'
	@echo 'make test-real  the suites on real components: SUITES="$(SUITES)"'
	@echo 'make bench      figures, and one line per bar: bench-osds and bench-lvm'
	@echo 'make bench-osds those without a guest: BENCH="-short" is quicker'
	@echo 'make bench-lvm  those of LVM and of attaching, in a guest'
	@echo 'make build      bin/osdslet, bin/osdsdock, bin/osdsctl'
	@echo 'make install    binaries, systemd units and example configuration below $$DESTDIR$$PREFIX'
	@echo 'make fuzz-short every fuzz target for a few seconds'
	@echo 'make docs       write docs/configuration.md from the configuration structs'
	@echo 'make proto      generate the dock protocol (needs protoc and its Go plug-ins)'

build:
	$(GO) build -trimpath -tags '$(TAGS)' -ldflags '$(LDFLAGS)' -o $(BIN)/ $(PROGS:%=./cmd/%)

run: build
	@deploy/dev/run $(BIN)

test: lint test-unit

lint:
	@out=$$(gofmt -l cmd internal pkg test); if [ -n "$$out" ]; then echo "gofmt:"; echo "$$out"; exit 1; fi
	$(GO) vet ./...
	$(GO) vet -tags real ./...
	$(GO) tool staticcheck -tags real ./...
ifneq ($(TAGS),)
	$(GO) vet -tags '$(TAGS)' ./pkg/drivers/... ./cmd/... ./test/bench
	$(GO) tool staticcheck -tags '$(TAGS)' ./pkg/drivers/... ./cmd/... ./test/bench
endif

test-unit:
	$(GO) test -race -tags '$(TAGS)' -timeout 20m ./...

test-real: build
	@set -e; for s in $(SUITES); do \
	  echo "== suite $$s"; \
	  if [ $$s = ceph ]; then $(MAKE) --no-print-directory test-ceph; continue; fi; \
	  case $$s in *-short) short=-short;; *) short=;; esac; \
	  $(GO) test -tags 'real $(TAGS)' -count=1 -timeout 80m $$short -v ./test/$${s%-short}/...; \
	done

# What Ceph's headers are is looked at again once they have been installed.
test-ceph:
	@if $(GO) run ./test/cephlab/cmd install; then $(MAKE) --no-print-directory test-ceph-run; fi

test-ceph-run:
	$(GO) vet -tags 'real $(TAGS)' ./test/ceph/... ./test/cephlab/...
	$(GO) test -tags 'real $(TAGS)' -count=1 -timeout 20m -v ./test/cephlab/... ./test/ceph/...

fuzz-short:
	@deploy/dev/fuzz-short

# The figures of the guest are no verdict: where there is no guest there are none.
bench: bench-osds
	-@$(MAKE) --no-print-directory bench-lvm

bench-osds:
	$(GO) run -tags '$(TAGS)' ./test/bench $(BENCH)

bench-lvm:
	$(GO) test -tags real -count=1 -timeout 12m -v -run '^TestFigures$$' ./test/lvm

proto:
	$(GO) generate ./pkg/dock/dockpb

docs:
	$(GO) run ./internal/gendocs

install: build
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)/etc/osds/driver $(DESTDIR)/lib/systemd/system $(DESTDIR)/var/lib/osds
	install -m 0755 $(PROGS:%=$(BIN)/%) $(DESTDIR)$(PREFIX)/bin/
	for f in osdslet.yaml osdsdock.yaml; do \
	  [ -e $(DESTDIR)/etc/osds/$$f ] || install -m 0640 deploy/$$f $(DESTDIR)/etc/osds/$$f; done
	[ -e $(DESTDIR)/etc/osds/driver/local.yaml ] || install -m 0640 deploy/driver/local.yaml $(DESTDIR)/etc/osds/driver/local.yaml
	install -d $(DESTDIR)/usr/lib/sysusers.d
	install -m 0644 deploy/systemd/osds.sysusers $(DESTDIR)/usr/lib/sysusers.d/osds.conf
	for u in osdslet osdsdock; do \
	  sed 's|@BINDIR@|$(PREFIX)/bin|' deploy/systemd/$$u.service > $(DESTDIR)/lib/systemd/system/$$u.service; \
	  chmod 0644 $(DESTDIR)/lib/systemd/system/$$u.service; done

clean:
	rm -rf $(BIN)
