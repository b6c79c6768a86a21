# install.cmake - what cmake --install puts where: headers, libraries, pkg-config, CMake package.
# SPDX-License-Identifier: Apache-2.0
install(FILES ${public_headers} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/quire)
install(TARGETS quire-static quire-shared EXPORT quire-targets)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/quire)
configure_package_config_file(cmake/quire-config.cmake.in quire-config.cmake
                              INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(quire-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/quire-config.cmake
              ${PROJECT_BINARY_DIR}/quire-config-version.cmake DESTINATION ${package_dir})
install(EXPORT quire-targets NAMESPACE quire:: DESTINATION ${package_dir})

# The prefix is found from where quire.pc lies, so that an installed tree can be moved.
file(RELATIVE_PATH pc_to_prefix /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
string(REGEX REPLACE "/$" "" pc_to_prefix "${pc_to_prefix}")
configure_file(cmake/quire.pc.in quire.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/quire.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

if(TARGET quire-cli)
    install(TARGETS quire-cli)
    if(EXISTS ${PROJECT_SOURCE_DIR}/docs/man/quire.1)
        install(FILES docs/man/quire.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
    endif()
    if(EXISTS ${PROJECT_SOURCE_DIR}/tools/completion/quire.bash)
        install(FILES tools/completion/quire.bash RENAME quire
                DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
    endif()
endif()
