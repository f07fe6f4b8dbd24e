# Installs the library, its headers and the command, with a CMake package (find_package(saccade)) and saccade.pc.
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/saccade)

install(TARGETS saccade EXPORT saccadeTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY include/saccade DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
if(SACCADE_CUBIN_PACK)
    install(FILES ${cubin_pack} DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()
if(TARGET saccade_command)
    install(TARGETS saccade_command RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
file(GLOB manual_pages CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/docs/*.1)
install(FILES ${manual_pages} DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)

install(EXPORT saccadeTargets NAMESPACE saccade:: DESTINATION ${package_dir})
configure_package_config_file(cmake/saccadeConfig.cmake.in ${PROJECT_BINARY_DIR}/saccadeConfig.cmake
                              INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/saccadeConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/saccadeConfig.cmake ${PROJECT_BINARY_DIR}/saccadeConfigVersion.cmake
        DESTINATION ${package_dir})

# Relative to saccade.pc itself, so that `cmake --install --prefix` and a copy moved later are served.
file(RELATIVE_PATH pkgconfig_to_prefix /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
string(REGEX REPLACE "/$" "" pkgconfig_to_prefix ${pkgconfig_to_prefix})
configure_file(cmake/saccade.pc.in ${PROJECT_BINARY_DIR}/saccade.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/saccade.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

# What the Python package carries: the library beside its declarations. Made by `pip install .` alone.
option(SACCADE_PYTHON "Install the library into the Python package" OFF)
if(SACCADE_PYTHON)
    install(TARGETS saccade LIBRARY DESTINATION saccade COMPONENT python NAMELINK_SKIP)
    install(FILES ${declarations} DESTINATION saccade COMPONENT python)
    if(SACCADE_CUBIN_PACK)
        install(FILES ${cubin_pack} DESTINATION saccade COMPONENT python)
    endif()
endif()
