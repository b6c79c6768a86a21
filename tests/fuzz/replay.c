/* replay.c - runs a fuzz target over its saved corpus, so that every find stays an ordinary test.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Usage: PROGRAM FOLDER. Each file of the folder goes through LLVMFuzzerTestOneInput once, in order
 * of name. A folder without a file is a failure: it would test nothing. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));

static int is_visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static int replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    struct stat st;
    if (file == NULL || fstat(fileno(file), &st) != 0) {
        perror(path);
        if (file != NULL)
            (void)fclose(file);
        return -1;
    }
    /* Exactly as large as the input, so that a sanitizer sees a read past its end. */
    size_t size = (size_t)st.st_size;
    uint8_t *data = malloc(size > 0 ? size : 1);
    int result = -1;
    if (data == NULL || fread(data, 1, size, file) != size)
        perror(path);
    else
        result = LLVMFuzzerTestOneInput(data, size);
    free(data);
    (void)fclose(file);
    return result;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        (void)fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
        return 2;
    }
    if (LLVMFuzzerInitialize != NULL && LLVMFuzzerInitialize(&argc, &argv) != 0)
        return 1;
    struct dirent **entries = NULL;
    int count = scandir(argv[1], &entries, is_visible, alphasort);
    if (count <= 0) {
        (void)fprintf(stderr, "%s: no corpus\n", argv[1]);
        free(entries);
        return 1;
    }
    int failures = 0;
    for (int i = 0; i < count; i++) {
        char path[4096];
        (void)snprintf(path, sizeof path, "%s/%s", argv[1], entries[i]->d_name);
        if (replay_file(path) != 0)
            failures++;
        free(entries[i]);
    }
    free(entries);
    (void)printf("%d inputs, %d failures\n", count, failures);
    return failures != 0;
}
