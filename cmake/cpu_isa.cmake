# Instruction sets of the CPU kernels. Every file of src/cpu/kernels is compiled once per row, with SAC_ISA defined as
# the row's name (the compiler's own __AVX2__ and so on say what it offers); the rest of the library sees
# SAC_HAVE_ISA_<NAME>, 1 for a row compiled and else 0, and picks at run time. A row whose flags the compiler lacks is
# left out; other processors than x86-64 have generic only.
include(CheckCCompilerFlag)
set(isa_flags_generic "")
set(isa_flags_avx2 -mavx2 -mfma -mf16c)
set(isa_flags_avx512 ${isa_flags_avx2} -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512bf16 -mprefer-vector-width=512)
set(isa_flags_amx ${isa_flags_avx512} -mamx-tile -mamx-bf16)

set(SACCADE_ISAS generic)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
    foreach(isa avx2 avx512 amx)
        string(REPLACE ";" " " flags "${isa_flags_${isa}}")
        check_c_compiler_flag("${flags}" SACCADE_COMPILER_HAS_${isa})
        if(SACCADE_COMPILER_HAS_${isa})
            list(APPEND SACCADE_ISAS ${isa})
        endif()
    endforeach()
endif()

# saccade_isa_objects(OUT target sources...): one object library per instruction set, compiled with the flags and
# include paths of `target`, which learns, with all that links it, which sets exist. OUT gets their names.
function(saccade_isa_objects out target)
    set(libraries "")
    foreach(isa generic avx2 avx512 amx)
        string(TOUPPER ${isa} upper)
        set(compiled 0)
        if(isa IN_LIST SACCADE_ISAS)
            set(compiled 1)
        endif()
        target_compile_definitions(${target} PUBLIC SAC_HAVE_ISA_${upper}=${compiled})
        if(ARGN AND compiled)
            add_library(saccade_cpu_${isa} OBJECT ${ARGN})
            target_compile_options(saccade_cpu_${isa} PRIVATE ${isa_flags_${isa}})
            target_compile_definitions(saccade_cpu_${isa} PRIVATE SAC_ISA=${isa})
            target_include_directories(saccade_cpu_${isa} PRIVATE ${PROJECT_SOURCE_DIR}/src)
            target_link_libraries(saccade_cpu_${isa} PRIVATE saccade_flags saccade_dependencies)
            list(APPEND libraries saccade_cpu_${isa})
        endif()
    endforeach()
    set(${out} ${libraries} PARENT_SCOPE)
endfunction()
