# The public headers as one file of plain declarations, for languages that read C declarations (cffi). Made by the C
# preprocessor, so that there is no second copy of the interface to keep true. Standard headers are empty stand-ins:
# their types are known to every reader.
set(declarations ${PROJECT_BINARY_DIR}/saccade_declarations.h)
set(stand_ins ${PROJECT_BINARY_DIR}/declarations)
foreach(header stdint stddef stdbool)
    file(WRITE ${stand_ins}/${header}.h "")
endforeach()
file(WRITE ${stand_ins}/all.c "#define bool _Bool\n#include <saccade/attention.h>\n#include <saccade/backend.h>\n"
                              "#include <saccade/device_mask.h>\n#include <saccade/nsa.h>\n#include <saccade/version.h>\n")
file(GLOB public_headers CONFIGURE_DEPENDS include/saccade/*.h)
add_custom_command(OUTPUT ${declarations} DEPENDS ${public_headers} VERBATIM
                   COMMAND ${CMAKE_C_COMPILER} -E -P -nostdinc "-D__attribute__(x)=" -I${stand_ins} -I${PROJECT_SOURCE_DIR}/include
                           -I${DLPACK_INCLUDE_DIR} ${stand_ins}/all.c -o ${declarations})
add_custom_target(saccade_declarations ALL DEPENDS ${declarations})
