# saccade_libtcc: libtcc, fit to be linked into a shared library.
#
# Debian ships libtcc as an archive of position-dependent code. Its functions link into a shared library all the same;
# its three data references (stdout, stderr, environ) do not, because the symbols live in libc. So a copy of the
# archive has them renamed, and libtcc_streams.c defines the new names inside our library.
add_library(saccade_libtcc INTERFACE)
target_include_directories(saccade_libtcc SYSTEM INTERFACE ${LIBTCC_INCLUDE_DIR})
if(NOT LIBTCC_LIBRARY MATCHES "\\.a$")
    target_link_libraries(saccade_libtcc INTERFACE ${LIBTCC_LIBRARY})
    return()
endif()

set(archive ${PROJECT_BINARY_DIR}/libtcc_pic.a)
add_custom_command(OUTPUT ${archive} DEPENDS ${LIBTCC_LIBRARY} VERBATIM
                   COMMAND ${CMAKE_OBJCOPY} --redefine-sym stdout=sac_tcc_stdout --redefine-sym stderr=sac_tcc_stderr
                           --redefine-sym environ=sac_tcc_environ ${LIBTCC_LIBRARY} ${archive})
add_custom_target(libtcc_pic DEPENDS ${archive})
add_library(libtcc_streams STATIC cmake/libtcc_streams.c)
target_compile_definitions(libtcc_streams PRIVATE _GNU_SOURCE)
add_dependencies(libtcc_streams libtcc_pic)
target_link_libraries(saccade_libtcc INTERFACE ${archive} libtcc_streams) # in this order: the first needs the second
