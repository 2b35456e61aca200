# cairn_library, cairn_program, cairn_test: every target of the project is made by one of these three, so
# warnings, sanitizers and the numerics flags are the same everywhere.

set(CAIRN_SANITIZE "" CACHE STRING "Sanitizers, as for -fsanitize= (address,undefined or thread)")

add_library(cairn_flags INTERFACE)
target_include_directories(cairn_flags INTERFACE ${CMAKE_SOURCE_DIR})
set(cxx_flags
  -Wall -Wextra -Wshadow -Wconversion -Wnon-virtual-dtor -Woverloaded-virtual -Werror
  # GCC 12 warns of overlaps inside std::string's own operator+ (its bug 105651).
  -Wno-restrict
  # One rounding per written operation: a compiler that fuses a*b+c where it likes would make a token's bits
  # depend on how a loop was unrolled. Kernels fuse explicitly (kernels/README.md).
  -ffp-contract=off
  # AVX2 + FMA + F16C is the floor; cairn-engine refuses older processors at start.
  -march=x86-64-v3)
target_compile_options(cairn_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:${cxx_flags}>
  # The same for device code: one rounding per written operation, and warnings are errors.
  $<$<COMPILE_LANGUAGE:CUDA>:--fmad=false;-Werror=all-warnings;-lineinfo;-Xcompiler=-Wall,-Wextra,-ffp-contract=off,-march=x86-64-v3>)
if(CAIRN_SANITIZE)
  # GCC's sanitizers see uninitialised variables inside std::optional that are not there.
  target_compile_options(cairn_flags INTERFACE -fsanitize=${CAIRN_SANITIZE} -fno-omit-frame-pointer
    -fno-sanitize-recover=all -Wno-maybe-uninitialized)
  target_link_options(cairn_flags INTERFACE -fsanitize=${CAIRN_SANITIZE})
endif()

# GCC says what is a warning here; clang is taken for its fuzzer only.
if(CMAKE_CXX_COMPILER_ID STREQUAL Clang)
  target_compile_options(cairn_flags INTERFACE -w)
endif()

# What nearly every source includes, compiled once: a fifth to a half of a build's time. Sources include what they need all the
# same: header_check and a build with -DCAIRN_PRECOMPILED=OFF do without.
option(CAIRN_PRECOMPILED "Compile common headers once" ON)
if(CAIRN_PRECOMPILED AND CMAKE_CXX_COMPILER_ID STREQUAL GNU)
  # All that changes how headers are read must be the same in every target. -fpch-preprocess and the sloppiness: without
  # them ccache caches nothing of what uses precompiled headers. Depend mode: what is not cached is not preprocessed twice.
  if(CMAKE_CXX_COMPILER_LAUNCHER MATCHES "ccache$")
    set(CMAKE_CXX_COMPILER_LAUNCHER env CCACHE_DEPEND=true CCACHE_SLOPPINESS=pch_defines,time_macros
      ${CMAKE_CXX_COMPILER_LAUNCHER})
  endif()
  target_compile_options(cairn_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-pthread;-fpch-preprocess>)
  # GCC 12 no longer knows what came out of a precompiled header for a system header's, and warns of std::string's and
  # absl::StatusOr's own copies (as its bugs 105329, 105651).
  target_compile_options(cairn_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-array-bounds;-Wno-stringop-overflow;-Wno-stringop-overread>)
  foreach(name IN ITEMS cairn_precompiled cairn_precompiled_test)
    file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/precompiled/${name}.cc CONTENT "")
    add_library(${name} OBJECT ${CMAKE_BINARY_DIR}/precompiled/${name}.cc)
    target_link_libraries(${name} PRIVATE cairn_flags absl::status absl::statusor absl::strings absl::time)
    target_precompile_headers(${name} PRIVATE
      <algorithm> <functional> <memory> <mutex> <optional> <span> <string> <thread> <vector>
      <absl/status/status.h> <absl/status/statusor.h> <absl/strings/str_cat.h> <absl/time/time.h>)
  endforeach()
  target_link_libraries(cairn_precompiled_test PRIVATE GTest::gmock)
  target_precompile_headers(cairn_precompiled_test PRIVATE <gmock/gmock.h> <gtest/gtest.h>)
endif()
function(cairn_use_precompiled target headers)
  if(TARGET ${headers})
    target_precompile_headers(${target} REUSE_FROM ${headers})
  endif()
endfunction()

function(cairn_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS;PRIVATE_DEPS" ${ARGN})
  if(ARG_SOURCES)
    add_library(${name} STATIC ${ARG_SOURCES})
    target_link_libraries(${name} PUBLIC cairn_flags ${ARG_DEPS} PRIVATE ${ARG_PRIVATE_DEPS})
    cairn_use_precompiled(${name} cairn_precompiled)
  else()
    add_library(${name} INTERFACE)
    target_link_libraries(${name} INTERFACE cairn_flags ${ARG_DEPS})
  endif()
endfunction()

function(cairn_program name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE cairn_flags ${ARG_DEPS})
  cairn_use_precompiled(${name} cairn_precompiled)
endfunction()

# Builds the unit tests and nothing else: what a sanitizer run needs.
add_custom_target(unit_tests)

# LABELS unit (default): fast, no processes, run under every sanitizer. LABELS slow: end to end, release only.
function(cairn_test name)
  cmake_parse_arguments(ARG "" "LABEL;TIMEOUT" "SOURCES;DEPS" ${ARGN})
  if(NOT ARG_LABEL)
    set(ARG_LABEL unit)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE cairn_flags ${ARG_DEPS} GTest::gmock GTest::gtest_main)
  cairn_use_precompiled(${name} cairn_precompiled_test)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/test)
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES LABELS ${ARG_LABEL} TIMEOUT ${ARG_TIMEOUT})
  if(ARG_LABEL STREQUAL unit)
    add_dependencies(unit_tests ${name})
  endif()
endfunction()
