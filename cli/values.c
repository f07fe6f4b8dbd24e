/* values.c - values of options. */
#include "values.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

bool parse_int(const char *text, int64_t min, int64_t max, int64_t *value) {
    int64_t single;
    if (parse_int_list(text, min, max, 1, 1, &single) != 1) return false;
    *value = single;
    return true;
}

bool parse_double(const char *text, double *value) {
    char *end;
    *value = strtod(text, &end);
    return end != text && !*end && isfinite(*value);
}

int parse_int_list(const char *text, int64_t min, int64_t max, int min_count, int max_count,
                   int64_t *values) {
    for (int count = 0; count < max_count;) {
        char *end;
        errno = 0;
        long long value = strtoll(text, &end, 10);
        if (end == text || errno || value < min || value > max) return -1;
        values[count++] = value;
        if (!*end) return count >= min_count ? count : -1;
        if (*end != ',') return -1;
        text = end + 1;
    }
    return -1;
}

float parse_float(struct argp_state *state, const char *option, const char *text) {
    double value = 0;
    if (!parse_double(text, &value) || fabs(value) > FLT_MAX)
        argp_error(state, "%s %s: expected a number", option, text);
    return (float)value;
}

void parse_input(struct argp_state *state, const char *text, const char **input) {
    if (*input) argp_error(state, "%s: one input is enough, and it is %s", text, *input);
    *input = text;
}

static const char *option_name(const struct argp_option *options, int key) {
    while (options->key != key) options++;
    return options->name;
}

error_t store_value(const plain_value *values, const struct argp_option *options, int key, const char *text,
                    struct argp_state *state) {
    while (values->key && values->key != key) values++;
    if (!values->key) return ARGP_ERR_UNKNOWN;
    char *member = (char *)state->input + values->offset;
    if (values->kind == VALUE_FLAG) {
        *(bool *)member = true;
        return 0;
    }
    if (values->kind == VALUE_TEXT) {
        *(const char **)member = text;
        return 0;
    }
    int64_t number = 0;
    if (!parse_int(text, values->min, values->max, &number))
        argp_error(state, "--%s %s: expected a whole number from %lld to %lld", option_name(options, key),
                   text, (long long)values->min, (long long)values->max);
    if (values->kind == VALUE_INT32)
        *(int32_t *)member = (int32_t)number;
    else
        *(int64_t *)member = number;
    return 0;
}
