# Texts inside the library: device code and the headers it shares with the host, for the run-time compilers.
# saccade_embed(OUT files...): OUT gets a C file, made at build time, that defines the table of shared/embedded.h.
# Run as a script (cmake -P) this file is that build step: ROOT, FILES (relative to ROOT) and OUTPUT are given.
cmake_minimum_required(VERSION 3.18)
if(NOT CMAKE_SCRIPT_MODE_FILE)
    function(saccade_embed out)
        set(output ${PROJECT_BINARY_DIR}/embedded_texts.c)
        set(files "")
        foreach(file IN LISTS ARGN)
            file(RELATIVE_PATH relative ${PROJECT_SOURCE_DIR} ${file})
            list(APPEND files ${relative})
        endforeach()
        add_custom_command(OUTPUT ${output} VERBATIM
                           COMMAND ${CMAKE_COMMAND} -DROOT=${PROJECT_SOURCE_DIR} "-DFILES=${files}" -DOUTPUT=${output}
                                   -P ${PROJECT_SOURCE_DIR}/cmake/embed.cmake
                           DEPENDS ${ARGN} ${PROJECT_SOURCE_DIR}/cmake/embed.cmake)
        set(${out} ${output} PARENT_SCOPE)
    endfunction()
    return()
endif()

set(arrays "")
set(rows "")
set(index 0)
foreach(file IN LISTS FILES)
    file(READ ${ROOT}/${file} hex HEX)
    string(LENGTH "${hex}" size)
    math(EXPR size "${size} / 2")
    # one line of text is one line of the array
    string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
    string(REGEX REPLACE "(0x0a,)" "\\1\n    " bytes "${bytes}")
    string(REGEX REPLACE "^(include|src)/" "" path ${file})
    string(APPEND arrays "static const unsigned char text_${index}[] = { /* ${file} */\n    ${bytes}0};\n")
    string(APPEND rows "    {\"${path}\", (const char *)text_${index}, ${size}},\n")
    math(EXPR index "${index} + 1")
endforeach()
file(WRITE ${OUTPUT} "/* Made by cmake/embed.cmake. */
#include \"shared/embedded.h\"

${arrays}
const size_t sac_embedded_count = ${index};
const sac_embedded_file sac_embedded_files[] = {
${rows}    {0, 0, 0},
};
")
