/* folder.h - what lies in a folder that a test made. */
#ifndef TEST_FOLDER_H
#define TEST_FOLDER_H

/* Files in it, hidden ones left out. */
int count_files(const char *folder);

#endif
