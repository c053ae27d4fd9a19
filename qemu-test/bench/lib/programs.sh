# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
#
# Builds the programs that measure, on the host.

# build_reader LOG
build_reader() {
	step "bench: build the reader" "$1" "$QT/in-root" rustc --edition 2021 -O -C target-feature=+crt-static \
		-o "$BUILD/bin/reader" "$QT/bench/reader.rs"
}

# build_instructions LOG: the plugin of QEMU.
build_instructions() {
	step "bench: build what counts instructions" "$1" "$QT/in-root" gcc -O2 -Wall -Wextra -Werror -shared \
		-fPIC -o "$BUILD/bin/instructions.so" "$QT/bench/instructions.c"
}
