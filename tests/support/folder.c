/* folder.c - what lies in a folder. */
#include "support/folder.h"

#include <dirent.h>

#include "support/cmocka_all.h"

int count_files(const char *folder) {
    int count = 0;
    DIR *open = opendir(folder);
    assert_non_null(open);
    for (struct dirent *entry; (entry = readdir(open));) count += *entry->d_name != '.';
    closedir(open);
    return count;
}
