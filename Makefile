# Letterlock. As root on Debian 12 with a Swift 6.3 toolchain: `make demo`, `make test`.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

PREFIX ?= /usr/local
DESTDIR ?=
# Where mount(8) and umount(8) look for the helper of a file system type.
HELPERDIR ?= $(or $(realpath /sbin),/sbin)
UNITDIR ?= $(PREFIX)/lib/systemd/system
BASHCOMPDIR ?= $(PREFIX)/share/bash-completion/completions
ZSHCOMPDIR ?= $(PREFIX)/share/zsh/site-functions
FISHCOMPDIR ?= $(PREFIX)/share/fish/vendor_completions.d
DOCDIR ?= $(PREFIX)/share/doc/letterlock

# The toolchain, also where PATH is a service's and not a user's.
SWIFT ?= $(firstword $(shell command -v swift) \
    $(wildcard /opt/swift/usr/bin/swift /usr/local/swift/usr/bin/swift /usr/share/swift/usr/bin/swift) swift)
export SWIFT
# SwiftPM keeps its caches in $HOME, which a build service may not set.
export HOME ?= $(shell getent passwd $$(id -u) | cut -d: -f6)

RELEASE_FLAGS := --configuration release --static-swift-stdlib -Xswiftc -cross-module-optimization
PROGRAM := .build/release/letterlock

.PHONY: all build debug demo test soak bench lint format install uninstall clean build-packages

all: build

build-packages:
	@.ci/install-packages build

build: build-packages
	$(SWIFT) build $(RELEASE_FLAGS) --product letterlock

debug: build-packages
	$(SWIFT) build

# Two keyrings side by side, from their making to their unmounting, told on a page.
demo: build
	@.ci/install-packages demo
	@LETTERLOCK=$(CURDIR)/$(PROGRAM) mount-examples/demo/run.sh

test: build-packages
	@.ci/install-packages demo test
	$(SWIFT) build --build-tests
	$(SWIFT) test --skip-build --no-parallel --disable-xctest

# The server is killed KILLS times for each way to cache; SEED repeats a run.
soak: KILLS ?= 250
soak: build-packages
	@.ci/install-packages demo test
	$(SWIFT) build --build-tests
	LETTERLOCK_SOAK_KILLS=$(KILLS) LETTERLOCK_SOAK_SEED=$(SEED) \
	    $(SWIFT) test --skip-build --no-parallel --disable-xctest --filter SoakTests

# `make bench ARGS='--help'` tells what it can measure.
bench: build
	@.ci/install-packages bench
	$(SWIFT) build $(RELEASE_FLAGS) --product letterlock-bench
	$(SWIFT) build $(RELEASE_FLAGS) --product serve-alone
	$(SWIFT) build --configuration release --product fuse-limit
	.build/release/letterlock-bench $(ARGS)

lint:
	@.ci/lint

format:
	$(SWIFT) format --in-place --recursive --configuration .swift-format Sources Tests Package.swift

# Builds only if nothing is built, so that `sudo make install` needs no toolchain after `make build`.
install:
	@[[ -x $(PROGRAM) ]] || $(MAKE) build
	install -D -m 0755 $(PROGRAM) $(DESTDIR)$(PREFIX)/bin/letterlock
	install -d $(DESTDIR)$(HELPERDIR) $(DESTDIR)$(UNITDIR)
	ln -sfn $(PREFIX)/bin/letterlock $(DESTDIR)$(HELPERDIR)/mount.fuse.letterlock
	ln -sfn $(PREFIX)/bin/letterlock $(DESTDIR)$(HELPERDIR)/umount.fuse.letterlock
	sed 's|/usr/local/|$(PREFIX)/|g' mount-examples/systemd/letterlock@.service \
	    >$(DESTDIR)$(UNITDIR)/letterlock@.service
	chmod 0644 $(DESTDIR)$(UNITDIR)/letterlock@.service
	install -d $(DESTDIR)$(BASHCOMPDIR) $(DESTDIR)$(ZSHCOMPDIR) $(DESTDIR)$(FISHCOMPDIR)
	$(PROGRAM) completions bash >$(DESTDIR)$(BASHCOMPDIR)/letterlock
	$(PROGRAM) completions zsh >$(DESTDIR)$(ZSHCOMPDIR)/_letterlock
	$(PROGRAM) completions fish >$(DESTDIR)$(FISHCOMPDIR)/letterlock.fish
	install -D -m 0644 README.md $(DESTDIR)$(DOCDIR)/README.md
	install -D -m 0644 LICENCE $(DESTDIR)$(DOCDIR)/LICENCE

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/letterlock $(DESTDIR)$(UNITDIR)/letterlock@.service
	rm -f $(DESTDIR)$(HELPERDIR)/mount.fuse.letterlock $(DESTDIR)$(HELPERDIR)/umount.fuse.letterlock
	rm -f $(DESTDIR)$(BASHCOMPDIR)/letterlock $(DESTDIR)$(ZSHCOMPDIR)/_letterlock
	rm -f $(DESTDIR)$(FISHCOMPDIR)/letterlock.fish
	rm -rf $(DESTDIR)$(DOCDIR)

clean:
	rm -rf .build
