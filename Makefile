# Thin front of CMake: `make` leaves build/saccade and build/libsaccade.so.
BUILD ?= build
PREFIX ?= /usr/local
MAKEFLAGS += --no-print-directory
.PHONY: all test demo install clean format

all:
	@cmake -S . -B $(BUILD) $(CMAKE_FLAGS)
	@cmake --build $(BUILD) --parallel $(shell nproc)

test:
	@scripts/test

demo:
	@scripts/demo

install: all
	@cmake --install $(BUILD) --prefix $(PREFIX)

clean:
	@rm -rf $(BUILD)

format:
	@git ls-files '*.c' '*.h' '*.cu' '*.cuh' | xargs clang-format -i
