# header_check: compiles every header alone, so that none relies on what another file happened to include first.
# Included after all targets exist; not in sanitizer builds, where it would only repeat the work.
file(GLOB_RECURSE headers RELATIVE ${CMAKE_SOURCE_DIR} CONFIGURE_DEPENDS
  store/*.h cache/*.h engine/*.h kernels/*.h tools/*.h tests/*.h)
set(sources)
foreach(header IN LISTS headers)
  string(MAKE_C_IDENTIFIER ${header} identifier)
  set(source ${CMAKE_BINARY_DIR}/header_check/${identifier}.cc)
  file(CONFIGURE OUTPUT ${source} CONTENT "#include \"@header@\"\n#include \"@header@\"\n" @ONLY)
  list(APPEND sources ${source})
endforeach()
add_library(header_check OBJECT ${sources})
target_link_libraries(header_check PRIVATE cairn_flags GTest::gmock)
target_compile_options(header_check PRIVATE -O0 -g0)
# Headers of the service include generated ones.
foreach(generated IN ITEMS cairn_proto)
  if(TARGET ${generated})
    target_link_libraries(header_check PRIVATE ${generated})
  endif()
endforeach()
