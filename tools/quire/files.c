/* files.c - what the command reads and writes whole: texts, lists of ids, JSON, logits.
 * SPDX-License-Identifier: Apache-2.0 */
#include "quire/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "quire/console.h"

enum { READ_BYTES = 65536, PATH_BYTES_MAX = 4096 };

/* ---- reading ---- */

int files_read(const char *path, struct quire__bytes *out)
{
    const bool is_stdin = strcmp(path, "-") == 0;
    const char *name = is_stdin ? "standard input" : path;
    FILE *file = is_stdin ? stdin : fopen(path, "rbe");
    if (file == NULL) {
        cli_error("cannot open %s: %s", path, strerror(errno));
        return CLI_BAD_DATA;
    }
    int result = CLI_OK;
    struct quire_error error;
    for (;;) {
        if (out->count > INT32_MAX) {
            cli_error("%s is over 2 GiB: cut it into parts", name);
            result = CLI_BAD_DATA;
            break;
        }
        if (quire__bytes_reserve(out, READ_BYTES, &error) != QUIRE_OK) {
            result = cli_fail(&error);
            break;
        }
        size_t count = fread(out->data + out->count, 1, READ_BYTES, file);
        out->count += count;
        if (count == 0)
            break;
    }
    if (result == CLI_OK && ferror(file) != 0) {
        cli_error("cannot read %s: %s", name, strerror(errno));
        result = CLI_BAD_DATA;
    }
    if (!is_stdin)
        (void)fclose(file);
    return result;
}

int files_parse_ids(const char *where, const struct quire__bytes *text, uint32_t vocabulary,
                    struct quire__ids *out)
{
    json_error_t where_bad;
    struct quire_error error;
    json_t *root = json_loadb(text->data, text->count, 0, &where_bad);
    if (root == NULL) {
        cli_error("%s is not JSON: line %d: %s; expected an array of token ids", where,
                  where_bad.line, where_bad.text);
        return CLI_BAD_DATA;
    }
    int result = CLI_OK;
    const json_t *array = json_is_object(root) ? json_object_get(root, "ids") : root;
    if (!json_is_array(array)) {
        cli_error("%s holds no array of token ids, nor an object with one as \"ids\"", where);
        result = CLI_BAD_DATA;
    }
    for (size_t i = 0; result == CLI_OK && i < json_array_size(array); i++) {
        const json_t *item = json_array_get(array, i);
        json_int_t id = json_integer_value(item);
        if (!json_is_integer(item) || id < 0 || id >= (json_int_t)vocabulary) {
            cli_error("%s: element %zu is no token id: expected whole numbers from 0 to %u", where,
                      i, vocabulary - 1);
            result = CLI_BAD_DATA;
        } else if (quire__ids_push(out, (uint32_t)id, &error) != QUIRE_OK) {
            result = cli_fail(&error);
        }
    }
    json_decref(root);
    return result;
}

/* ---- writing ---- */

static bool write_all(int fd, const uint8_t *data, uint64_t bytes)
{
    while (bytes > 0) {
        ssize_t count = write(fd, data, bytes);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return false;
        data += count;
        bytes -= (uint64_t)count;
    }
    return true;
}

/* Where a file is written until it is whole: beside the target, and renamed then. A device or a
 * link is written in place, as renaming would replace it. */
struct target {
    int fd; /* negative: not open, and errno says why */
    bool in_place;
    char temporary[PATH_BYTES_MAX];
};

static bool is_in_place(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0 && !S_ISREG(st.st_mode);
}

static void open_target(const char *path, struct target *target)
{
    *target = (struct target){.fd = -1, .in_place = is_in_place(path)};
    if (target->in_place) {
        target->fd = open(path, O_WRONLY | O_CLOEXEC | O_TRUNC);
        return;
    }
    int length =
        snprintf(target->temporary, sizeof target->temporary, "%s.%ld.tmp", path, (long)getpid());
    if (length < 0 || (size_t)length >= sizeof target->temporary)
        errno = ENAMETOOLONG;
    else
        target->fd = open(target->temporary, O_WRONLY | O_CLOEXEC | O_CREAT | O_EXCL, 0666);
}

static int cannot_write(const char *path, int os_code)
{
    cli_error("cannot write %s: %s", path, strerror(os_code));
    return CLI_BAD_DATA;
}

int files_try_write(const char *path)
{
    struct target target;
    if (path == NULL || is_in_place(path))
        return CLI_OK;
    open_target(path, &target);
    if (target.fd < 0)
        return cannot_write(path, errno);
    (void)close(target.fd);
    (void)unlink(target.temporary);
    return CLI_OK;
}

int files_write(const char *path, const void *data, uint64_t bytes)
{
    struct stat st;
    struct target target;
    open_target(path, &target);
    bool ok = target.fd >= 0 && write_all(target.fd, data, bytes);
    if (ok && !target.in_place && stat(path, &st) == 0)
        ok = fchmod(target.fd, st.st_mode & 07777) == 0;
    int os_code = errno;
    if (target.fd >= 0 && close(target.fd) != 0 && ok) {
        ok = false;
        os_code = errno;
    }
    if (ok && !target.in_place && rename(target.temporary, path) != 0) {
        ok = false;
        os_code = errno;
    }
    if (ok)
        return CLI_OK;
    if (target.fd >= 0 && !target.in_place)
        (void)unlink(target.temporary);
    return cannot_write(path, os_code);
}

json_t *files_json_ids(const uint32_t *ids, uint64_t count)
{
    json_t *array = json_array();
    for (uint64_t i = 0; array != NULL && i < count; i++) {
        if (json_array_append_new(array, json_integer(ids[i])) != 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static int append_json(const char *text, size_t count, void *bytes)
{
    struct quire_error error;
    return quire__bytes_append(bytes, text, count, &error) == QUIRE_OK ? 0 : -1;
}

int files_print_json(json_t *value)
{
    struct quire__bytes line = {0};
    bool made = value != NULL &&
                json_dump_callback(value, append_json, &line, JSON_REAL_PRECISION(12)) == 0 &&
                append_json("\n", 1, &line) == 0;
    json_decref(value);
    int result = CLI_OK;
    if (!made) {
        cli_error("no memory for the JSON output");
        result = CLI_BAD_DATA;
    } else if (!cli_write(line.data, line.count)) {
        result = CLI_BAD_DATA;
    }
    quire__bytes_deinit(&line);
    return result;
}
