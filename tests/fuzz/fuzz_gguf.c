/* fuzz_gguf.c - feeds any bytes to the GGUF reader, and reads all that it accepts.
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/base.h"
#include "model/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint8_t sink; /* what is read must not be optimised away */

static void touch(const void *data, uint64_t size)
{
    const uint8_t *bytes = data;
    if (size != 0)
        sink = (uint8_t)(bytes[0] ^ bytes[size - 1]);
}

static void read_array(const struct quire__gguf_array *array)
{
    struct quire__gguf_strings strings = quire__gguf_strings(array);
    struct quire__gguf_string string;
    uint64_t count = 0;
    for (; quire__gguf_next_string(&strings, &string); count++)
        touch(string.data, string.size);
    QUIRE_CHECK(count == (array->type == QUIRE__GGUF_STRING ? array->count : 0));
    for (uint64_t i = 0; i < array->count; i++) {
        int64_t integer;
        float real;
        (void)quire__gguf_array_i64(array, i, &integer);
        (void)quire__gguf_array_f32(array, i, &real);
    }
}

/* Every lookup of the key: exactly the ones that fit its type may succeed. */
static void read_key(const struct quire__gguf *gguf, const struct quire__gguf_key *key)
{
    char *name = quire__calloc((size_t)key->name.size + 1, 1);
    QUIRE_CHECK(name != NULL);
    memcpy(name, key->name.data, (size_t)key->name.size);
    uint64_t integer;
    float real;
    bool flag;
    struct quire__gguf_string string;
    struct quire__gguf_array array;
    uint32_t type = key->type;
    bool is_integer = type <= QUIRE__GGUF_I32 || type == QUIRE__GGUF_U64 || type == QUIRE__GGUF_I64;
    if (quire__gguf_u64(gguf, name, &integer) == QUIRE_OK)
        QUIRE_CHECK(is_integer);
    if (quire__gguf_f32(gguf, name, &real) == QUIRE_OK)
        QUIRE_CHECK(type == QUIRE__GGUF_F32 || type == QUIRE__GGUF_F64);
    QUIRE_CHECK((quire__gguf_bool(gguf, name, &flag) == QUIRE_OK) == (type == QUIRE__GGUF_BOOL));
    QUIRE_CHECK((quire__gguf_str(gguf, name, &string) == QUIRE_OK) == (type == QUIRE__GGUF_STRING));
    QUIRE_CHECK((quire__gguf_array(gguf, name, &array) == QUIRE_OK) == (type == QUIRE__GGUF_ARRAY));
    if (type == QUIRE__GGUF_STRING)
        touch(string.data, string.size);
    if (type == QUIRE__GGUF_ARRAY)
        read_array(&array);
    quire__free(name);
}

static void read_tensor(const struct quire__gguf *gguf, const struct quire__gguf_tensor *tensor)
{
    char *name = quire__calloc((size_t)tensor->name.size + 1, 1);
    QUIRE_CHECK(name != NULL);
    memcpy(name, tensor->name.data, (size_t)tensor->name.size);
    QUIRE_CHECK(quire__gguf_find_tensor(gguf, name) == tensor);
    QUIRE_CHECK(quire_weight_name(tensor->type) != NULL && tensor->bytes != 0);
    touch(tensor->data, tensor->bytes);
    quire__free(name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct quire__gguf *gguf = NULL;
    struct quire_error error = {0};
    if (quire__gguf_parse(data, size, "fuzz", &gguf, &error) != QUIRE_OK) {
        QUIRE_CHECK(gguf == NULL && error.message[0] != 0);
        return 0;
    }
    for (uint64_t i = 0; i < quire__gguf_key_count(gguf); i++)
        read_key(gguf, quire__gguf_key_at(gguf, i));
    for (uint64_t i = 0; i < quire__gguf_tensor_count(gguf); i++)
        read_tensor(gguf, quire__gguf_tensor_at(gguf, i));
    quire__gguf_close(gguf);
    return 0;
}
