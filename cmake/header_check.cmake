# header_check: compiles every header first in a source, so that none relies on what another file happened to include
# before it. A header may stand behind one that it includes itself: that one is first then for both, and the sources are
# half as many. So a source is a chain of headers, each including the one before it.
# Included after all targets exist; not in sanitizer builds, where it would only repeat the work.
file(GLOB_RECURSE headers RELATIVE ${CMAKE_SOURCE_DIR} CONFIGURE_DEPENDS
  store/*.h cache/*.h engine/*.h kernels/*.h tools/*.h tests/*.h)

# before_<header>: one that it includes and that no other header stands behind.
set(has_one_behind)
foreach(header IN LISTS headers)
  file(STRINGS ${CMAKE_SOURCE_DIR}/${header} includes REGEX "^#include \"")
  foreach(include IN LISTS includes)
    string(REGEX REPLACE "^#include \"(.*)\".*$" "\\1" include "${include}")
    if(include IN_LIST headers AND NOT include IN_LIST has_one_behind)
      set(before_${header} ${include})
      list(APPEND has_one_behind ${include})
      break()
    endif()
  endforeach()
endforeach()

set(sources)
foreach(last IN LISTS headers)
  if(last IN_LIST has_one_behind)
    continue()
  endif()
  set(chain)
  set(header ${last})
  while(header)
    string(PREPEND chain "#include \"${header}\"\n")
    set(header ${before_${header}})
  endwhile()
  string(MAKE_C_IDENTIFIER ${last} identifier)
  set(source ${CMAKE_BINARY_DIR}/header_check/${identifier}.cc)
  file(CONFIGURE OUTPUT ${source} CONTENT "${chain}${chain}" @ONLY)
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
