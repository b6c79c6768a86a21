/* status.c - the version, names and texts of the status codes, and the filling of error records.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/base.h"

#include <quire/version.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct status_row {
    quire_status status;
    const char *name;
    const char *text;
};

static const struct status_row rows[] = {{QUIRE_OK, "QUIRE_OK", "ok"},
#define STATUS_ROW(name, code, text) {(code), "QUIRE_E_" #name, (text)},
                                         QUIRE_STATUS_LIST(STATUS_ROW)
#undef STATUS_ROW
};

static const struct status_row *find(quire_status status)
{
    for (size_t i = 0; i < QUIRE_ARRAY_LEN(rows); i++) {
        if (rows[i].status == status)
            return &rows[i];
    }
    return NULL;
}

const char *quire_status_name(quire_status status)
{
    const struct status_row *row = find(status);
    return row != NULL ? row->name : "QUIRE_E_UNKNOWN";
}

const char *quire_status_text(quire_status status)
{
    const struct status_row *row = find(status);
    return row != NULL ? row->text : "unknown status";
}

static void fill(struct quire_error *error, quire_status status, int os_code, const char *format,
                 va_list args)
{
    if (error == NULL)
        return;
    error->status = status;
    error->os_code = os_code;
    int n = vsnprintf(error->message, sizeof error->message, format, args);
    if (os_code != 0 && n >= 0 && (size_t)n < sizeof error->message) {
        char buffer[96];
        /* The GNU strerror_r is thread-safe and returns the text. */
        const char *text = strerror_r(os_code, buffer, sizeof buffer);
        (void)snprintf(error->message + n, sizeof error->message - (size_t)n, ": %s", text);
    }
}

quire_status quire__fail(struct quire_error *error, quire_status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fill(error, status, 0, format, args);
    va_end(args);
    return status;
}

quire_status quire__fail_os(struct quire_error *error, quire_status status, int os_code,
                            const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fill(error, status, os_code, format, args);
    va_end(args);
    return status;
}

_Noreturn void quire__check_failed(const char *condition, const char *file, int line)
{
    (void)fprintf(stderr, "quire: broken invariant at %s:%d: %s\n", file, line, condition);
    abort();
}

const char *quire_version(void)
{
    return QUIRE_VERSION;
}
