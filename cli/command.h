/* command.h - what the parts of the command `saccade` share: exit codes, messages, the subcommands.
 *
 * The command is a client of include/saccade and of nothing else in the library.
 */
#ifndef COMMAND_H
#define COMMAND_H

#include <saccade/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    EXIT_OK = 0,
    EXIT_FAILED = 1, /* a check did not hold, or a computation or a write failed */
    EXIT_USAGE = 2,  /* the options or the input are wrong, or ask for what nothing here serves */
};

/* "saccade: ..." on stderr; control characters, which a hostile file may have put there, become '?'. */
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Complains with `what` (NULL: the error names it already) and the library's last error; the exit code that goes with
 * the status. */
int complain_status(const char *what, saccade_status status);

/* malloc and its kin; they end the command when memory is out. 64-byte aligned, zeroed. */
void *allocate(size_t bytes);
char *copy_string(const char *text);
char *format_string(const char *format, ...) __attribute__((format(printf, 1, 2)));

double seconds_now(void); /* monotonic */

/* Subcommands; argv[0] is "saccade NAME". They return the exit code. */
int attention_command(int argc, char **argv);
int check_command(int argc, char **argv);
int bench_command(int argc, char **argv);
int mask_command(int argc, char **argv);
int nsa_command(int argc, char **argv);
int backends_command(int argc, char **argv);

#endif
