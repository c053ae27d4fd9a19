# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The front door. What the kernel's build reads is Kbuild, beside this.

SHELL := /bin/bash
MAKEFLAGS += --no-print-directory
Q := qemu-test

# Given to the scripts where they are set.
export V CASES ROUNDS PUZZLEFS_CACHE DEBIAN_MIRROR KERNEL
# What runs and tests does so in the kernel of the cache, whatever this is.
unexport KDIR KMAKE

.PHONY: help run shell test test-kernels test-debug test-dkms test-install test-repeat check fuzz
.PHONY: bench bench-build bench-registry bench-lazy bench-containers module tools deb patches cases clean
.PHONY: distclean provision

help:
	@echo 'PuzzleFS: a container filesystem for the Linux kernel'
	@echo
	@echo '  make run          build all, mount a real Debian root filesystem in an'
	@echo '                    unmodified Debian kernel (QEMU), compare every byte of it'
	@echo '                    ROOTFS=DIR takes another root filesystem, whichever'
	@echo '  make shell        the same, ending in a shell in the guest'
	@echo '  make test         every test, on the host and in guests'
	@echo '  make check        formatting, lints, documentation, generated code'
	@echo '  make cases        the cases in guests; CASES="read-*" for some of them'
	@echo
	@echo '  KERNEL=NAME       with run, shell, cases, module, deb, test-dkms and provision: the kernel.'
	@echo '                    7.3 (default), 7.2 (both Debian backports), testing (Debian testing) or'
	@echo '                    arm64 (cross-built, compared in an emulated machine; not shell, test-dkms)'
	@echo '  make test-kernels every case on every kernel that KERNEL= accepts'
	@echo
	@echo '  make test-debug   the cases in a kernel that checks memory and locks (KASAN,'
	@echo '                    lockdep, kmemleak); building it takes half an hour once'
	@echo '  make test-dkms    puzzlefs-dkms, installed where it can build and where it cannot'
	@echo '  make test-install apt installs the packages on a machine that boots, upgrades and purges'
	@echo '                    them; a quarter of an hour'
	@echo '  make test-repeat  the tests on the host, fifty times on busy processors (ROUNDS=5)'
	@echo '  make fuzz         the readers of untrusted bytes, for a minute each (SECONDS_EACH=600)'
	@echo '  make bench        sizes and read times beside EROFS and squashfs, in one guest'
	@echo '  make bench-build  sizes and times of building images, beside our peers'
	@echo '  make bench-registry  bytes, requests and times of pushes and pulls, beside our peers'
	@echo '  make bench-lazy   images mounted before their data has arrived, on slow links, in one guest'
	@echo '  make bench-containers  pulls and starts of containers by containerd, beside its own'
	@echo '                    snapshotters'
	@echo
	@echo '  make module       build/puzzlefs.ko (KERNEL=NAME: build/puzzlefs-NAME.ko);'
	@echo '                    KDIR=<prepared kernel tree> for any other kernel'
	@echo '  make tools        build/bin/puzzlefs, build/bin/mount.puzzlefs (static)'
	@echo '  make deb          Debian packages of both, in build/deb'
	@echo '  make patches      the module as a series for a kernel tree, in build/patches,'
	@echo '                    and a build of the patched source'
	@echo '  make provision    only fill the cache: compilers, kernel, guest'
	@echo
	@echo '  make clean        remove build/'
	@echo '  make distclean    remove the cache, too'
	@echo
	@echo 'Set PUZZLEFS_CACHE to move the cache from ~/.cache/puzzlefs, DEBIAN_MIRROR to'
	@echo 'use another mirror than the one of this machine, V=1 for the output of builds.'
	@echo 'qemu-test/README.md tells how a case is written, and what exit codes mean.'

# Taken from the command line, not from whatever the environment calls so.
ROOTFS_GIVEN = $(if $(filter command line,$(origin ROOTFS)),$(if $(ROOTFS),"$$ROOTFS"))

run:
	@$(Q)/run $(ROOTFS_GIVEN)

shell:
	@$(Q)/shell $(ROOTFS_GIVEN)

test:
	@$(Q)/test

test-kernels:
	@$(Q)/test-kernels $(CASES)

test-debug:
	@$(Q)/run-cases --debug $(CASES)

test-dkms:
	@packaging/test-dkms

test-install:
	@packaging/test-install

check:
	@$(Q)/check

test-repeat:
	@$(Q)/repeat-tests $(ROUNDS)

fuzz:
	@fuzz/run --seconds $(or $(SECONDS_EACH),60)

bench:
	@$(Q)/bench/run

bench-build:
	@$(Q)/bench/build

bench-registry:
	@$(Q)/bench/registry

bench-lazy:
	@$(Q)/bench/lazy

bench-containers:
	@$(Q)/bench/containers

cases:
	@$(Q)/run-cases $(CASES)

module: export KDIR := $(KDIR)
module: export KMAKE := $(KMAKE)
module:
	@$(Q)/build-module

tools:
	@$(Q)/build-tools

deb:
	@packaging/build

patches:
	@packaging/patches --build

provision:
	@$(Q)/provision

clean:
	rm -rf build

distclean: clean
	@$(Q)/clear-cache
