# The standard kernels, compiled by the build into one file that lies beside the library (src/cuda/standard_kernels.c
# says which). NVRTC makes it, which needs no GPU; without NVRTC, or without the pack, kernels are compiled when first
# used.
find_library(SACCADE_NVRTC_LIBRARY NAMES nvrtc libnvrtc.so.13 libnvrtc.so.12
             HINTS ENV SACCADE_NVRTC ENV CUDA_HOME /usr/local/cuda PATH_SUFFIXES lib64 lib)
set(SACCADE_PACK_ARCHITECTURES 90 CACHE STRING "Compute capabilities whose kernels the cubin pack holds: 80;90")
# Builds for development change device code all the time: they have a pack only when asked.
set(nvrtc_found ${SACCADE_NVRTC_LIBRARY})
if(SACCADE_CUBIN_PACK STREQUAL AUTO OR NOT DEFINED SACCADE_CUBIN_PACK)
    if(SACCADE_SANITIZE OR NOT CMAKE_BUILD_TYPE STREQUAL Release)
        set(nvrtc_found FALSE)
    endif()
endif()
saccade_feature(CUBIN_PACK nvrtc_found "GPU kernels compiled by the build" "libnvrtc of CUDA 12 or 13 and a Release build")
if(SACCADE_CUBIN_PACK)
    add_executable(pack_cubins tools/pack_cubins.c)
    target_link_libraries(pack_cubins PRIVATE saccade_static saccade_flags)
    include(ProcessorCount)
    ProcessorCount(pack_processes)
    if(pack_processes LESS 1)
        set(pack_processes 1)
    endif()
    set(cubin_pack ${PROJECT_BINARY_DIR}/libsaccade.cubins)
    add_custom_command(OUTPUT ${cubin_pack} DEPENDS pack_cubins VERBATIM
                       COMMENT "Compiling GPU kernels for ${SACCADE_PACK_ARCHITECTURES}"
                       COMMAND ${CMAKE_COMMAND} -E env SACCADE_NVRTC=${SACCADE_NVRTC_LIBRARY} $<TARGET_FILE:pack_cubins>
                               ${cubin_pack} ${PROJECT_BINARY_DIR}/cubins ${pack_processes} ${SACCADE_PACK_ARCHITECTURES})
    add_custom_target(saccade_cubin_pack ALL DEPENDS ${cubin_pack})
endif()
