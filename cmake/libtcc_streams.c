/* libtcc_streams.c - the three libc objects that libtcc refers to, under the names cmake/libtcc.cmake gives
 * them. libc sets its own before any constructor runs, so a copy taken here is as good. */
#include <stdio.h>
#include <unistd.h>

extern FILE *sac_tcc_stdout, *sac_tcc_stderr;
extern char **sac_tcc_environ;

FILE *sac_tcc_stdout, *sac_tcc_stderr;
char **sac_tcc_environ;

__attribute__((constructor)) static void bind_streams(void) {
    sac_tcc_stdout = stdout;
    sac_tcc_stderr = stderr;
    sac_tcc_environ = environ;
}
