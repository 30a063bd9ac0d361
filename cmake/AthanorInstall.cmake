# Manual pages and completion, printed by the programs from the tables that --help uses, and what
# `cmake --install` puts where.
include(GNUInstallDirs)
set(share ${CMAKE_BINARY_DIR}/share)
set(doc ${CMAKE_INSTALL_DATAROOTDIR}/doc/athanor)

# athanor_page(FILE DESTINATION PROGRAM ARGUMENT...): what the program prints becomes share/FILE.
function(athanor_page file destination program)
  if(NOT TARGET ${program})
    return()
  endif()
  get_filename_component(folder ${share}/${file} DIRECTORY)
  add_custom_command(
    OUTPUT ${share}/${file}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${folder}
    COMMAND ${program} ${ARGN} > ${share}/${file}
    DEPENDS ${program}
    VERBATIM)
  set_property(GLOBAL APPEND PROPERTY ATHANOR_PAGES ${share}/${file})
  install(FILES ${share}/${file} DESTINATION ${destination})
endfunction()

athanor_page(man/man1/athanor.1 ${CMAKE_INSTALL_MANDIR}/man1 athanor help --man)
athanor_page(man/man1/athanor-engine.1 ${CMAKE_INSTALL_MANDIR}/man1 athanor-engine --man)
athanor_page(man/man8/athanor-coordinator.8 ${CMAKE_INSTALL_MANDIR}/man8 athanor-coordinator --man)
athanor_page(man/man8/athanor-worker.8 ${CMAKE_INSTALL_MANDIR}/man8 athanor-worker --man)
athanor_page(bash-completion/completions/athanor
             ${CMAKE_INSTALL_DATAROOTDIR}/bash-completion/completions athanor completion bash)
get_property(pages GLOBAL PROPERTY ATHANOR_PAGES)
add_custom_target(pages ALL DEPENDS ${pages})

# All programs in one folder: they find each other there. Modules in lib/athanor, whatever the
# system calls its folder of shared libraries, because that is where file_module looks.
foreach(program athanor athanor-coordinator athanor-worker athanor-shepherd athanor-engine)
  if(TARGET ${program})
    install(TARGETS ${program} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  endif()
endforeach()
install(PROGRAMS deploy/slurm/athanor-allocation DESTINATION lib/athanor)
if(TARGET athanor-pmix)
  install(TARGETS athanor-pmix athanor-gang LIBRARY DESTINATION lib/athanor)
endif()
if(TARGET engine-cuda)
  install(PROGRAMS ${CMAKE_BINARY_DIR}/bin/athanor-cuda.so DESTINATION lib/athanor)
endif()

# The units name programs below /usr/bin; another prefix gets units of its own.
foreach(unit athanor-coordinator athanor-worker athanor-pilot)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
                                         ${PROJECT_SOURCE_DIR}/systemd/${unit}.service)
  file(READ ${PROJECT_SOURCE_DIR}/systemd/${unit}.service text)
  string(REPLACE "=/usr/bin/" "=${CMAKE_INSTALL_FULL_BINDIR}/" text "${text}")
  file(CONFIGURE OUTPUT ${share}/systemd/${unit}.service CONTENT "${text}" @ONLY)
  install(FILES ${share}/systemd/${unit}.service DESTINATION lib/systemd/system)
endforeach()

install(FILES README.md DESTINATION ${doc})
install(FILES systemd/README.md DESTINATION ${doc}/systemd)
install(FILES worker/README.md DESTINATION ${doc}/worker)
install(FILES deploy/slurm/README.md DESTINATION ${doc}/slurm)
install(DIRECTORY jobspecs DESTINATION ${doc} USE_SOURCE_PERMISSIONS)
