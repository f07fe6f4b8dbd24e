/* values.h - values of options: read whole, held against what is allowed, and put where they belong. What does not fit
 * ends the command through argp_error, which names the option, what was found and what is allowed. */
#ifndef VALUES_H
#define VALUES_H

#include <argp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where the plain value of one option goes; a list of them ends with {0}. */
typedef struct plain_value {
    int key;
    enum { VALUE_FLAG, VALUE_TEXT, VALUE_INT32, VALUE_INT64 } kind; /* bool, const char *, ... */
    size_t offset;                                                  /* of the member, in the parser's input */
    int64_t min, max;                                               /* of numbers */
} plain_value;

/* Stores the value of an option that is in the list; ARGP_ERR_UNKNOWN for every other key. `options` has its name. */
error_t store_value(const plain_value *values, const struct argp_option *options, int key, const char *text,
                    struct argp_state *state);

/* "--scale": finite, as a float too. */
float parse_float(struct argp_state *state, const char *option, const char *text);

/* IN, of which there is one. */
void parse_input(struct argp_state *state, const char *text, const char **input);

/* Whole texts only; false, or -1, where they are something else. */
bool parse_int(const char *text, int64_t min, int64_t max, int64_t *value);
bool parse_double(const char *text, double *value);

/* "N,N,..." of at least `min_count` and at most `max_count` integers; the number read, or -1. */
int parse_int_list(const char *text, int64_t min, int64_t max, int min_count, int max_count, int64_t *values);

#endif
