# Every folder that holds code is one static library: athanor_room(NAME DIR LINK ...).
# Sources are globbed, so that adding a file touches one place; CONFIGURE_DEPENDS
# makes the next build notice it.

function(athanor_room name dir)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${dir}/*.c)
  if(NOT sources)
    return()
  endif()
  add_library(${name} STATIC ${sources})
  target_include_directories(${name} PUBLIC ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PUBLIC ${ARGN})
endfunction()

# Programs land in build/bin. athanor_program(NAME SOURCE LINK ...)
function(athanor_program name source)
  if(NOT EXISTS ${PROJECT_SOURCE_DIR}/${source})
    return()
  endif()
  add_executable(${name} ${PROJECT_SOURCE_DIR}/${source})
  target_link_libraries(${name} PRIVATE ${ARGN})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
endfunction()

# One cmocka program per tests/<suite>/*_test.c, registered with ctest under the suite's label.
# athanor_tests(SUITE LINK ...) : files directly in tests/<SUITE>.
function(athanor_tests suite)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/${suite}/*_test.c)
  string(REPLACE "/" "-" label ${suite})
  foreach(source ${sources})
    get_filename_component(stem ${source} NAME_WE)
    set(target ${label}-${stem})
    add_executable(${target} ${source})
    target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR})
    target_link_libraries(${target} PRIVATE ${ARGN} PkgConfig::CMOCKA)
    set_target_properties(${target} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
    add_test(NAME ${target} COMMAND ${target} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
    set_tests_properties(${target} PROPERTIES LABELS ${label} TIMEOUT 120)
  endforeach()
endfunction()
