# Fails where a file of SOURCE/src includes upward or sideways, or a client of the interface includes src/ at all.
# Inside src/ a quoted include names its folder ("shared/tile_walk.h"), from wherever it stands: so the texts inside the
# library are found by the names that they use themselves.
cmake_minimum_required(VERSION 3.18)

# The layers of docs/architecture.md, top to bottom. Folders of one row do not know each other.
set(layers "api" "nsa" "dispatch" "reference cpu cuda" "mask" "mod" "base" "shared")
set(errors "")

set(below "")
list(REVERSE layers)
foreach(layer IN LISTS layers)
    string(REPLACE " " ";" folders "${layer}")
    foreach(folder IN LISTS folders)
        file(GLOB_RECURSE files RELATIVE ${SOURCE} ${SOURCE}/src/${folder}/*.[ch] ${SOURCE}/src/${folder}/*.cu)
        foreach(file IN LISTS files)
            file(STRINGS ${SOURCE}/${file} includes REGEX "^#include \"")
            foreach(include IN LISTS includes)
                string(REGEX REPLACE "^#include \"([^/\"]*).*" "\\1" target "${include}")
                if(NOT target IN_LIST below AND NOT target STREQUAL folder)
                    string(APPEND errors "\n  ${file}: ${include}")
                endif()
            endforeach()
        endforeach()
    endforeach()
    list(APPEND below ${folders})
endforeach()

file(GLOB folders RELATIVE ${SOURCE}/src ${SOURCE}/src/*)
list(REMOVE_ITEM folders ${below})
if(folders)
    string(APPEND errors "\n  folders without a layer: ${folders}")
endif()

file(GLOB_RECURSE clients RELATIVE ${SOURCE} ${SOURCE}/cli/*.[ch] ${SOURCE}/examples/*.c ${SOURCE}/include/*.h)
list(JOIN below "|" internal)
foreach(file IN LISTS clients)
    file(STRINGS ${SOURCE}/${file} includes REGEX "^#include \".*(${internal})/")
    if(includes)
        string(APPEND errors "\n  ${file}: ${includes}")
    endif()
endforeach()

if(errors)
    message(FATAL_ERROR "These includes break the layers:${errors}")
endif()
