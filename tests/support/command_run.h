/* command_run.h - the command in a folder of its own, what it prints there, and the files it leaves. */
#ifndef TEST_COMMAND_RUN_H
#define TEST_COMMAND_RUN_H

#include "safetensors.h"

extern char folder[28];
extern char out_text[1 << 16], err_text[1 << 14];

bool make_folder(void);
int remove_folder(void); /* 0, as cmocka wants it */

/* A file of the folder, as far as it fits. */
void read_text(const char *name, char *text, size_t size);

/* Runs `saccade ARGUMENTS` in the folder; the texts are then in out_text and err_text. Returns the exit status. */
int run(const char *arguments);
void succeeds(const char *arguments);
/* With this exit status, these words on stderr, and nothing on stdout. */
void fails(const char *arguments, int expected, const char *words);

bool exists(const char *name);
safetensors_file *opened(const char *name);
double element(const safetensors_file *file, const char *name, size_t index);

#endif
