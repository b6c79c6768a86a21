/* outside.c - a program that knows Quire only as installed: pkg-config or find_package finds it.
 * SPDX-License-Identifier: Apache-2.0 */
#include <quire/quire.h>

#include <stdio.h>
#include <string.h>

int main(void)
{
    struct quire_backend *backend = NULL;
    struct quire_error error = {0};
    quire_status status = quire_backend_create("none", NULL, &backend, &error);
    if (status != QUIRE_OK) {
        (void)fprintf(stderr, "%s: %s\n", quire_status_name(status), error.message);
        return 1;
    }
    quire_backend_destroy(backend);
    (void)printf("quire %s\n", quire_version());
    return strcmp(quire_version(), QUIRE_VERSION) != 0;
}
