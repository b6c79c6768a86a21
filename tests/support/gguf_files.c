/* gguf_files.c - a writer of GGUF bytes, and small good and bad files that it writes.
 * SPDX-License-Identifier: Apache-2.0 */
#include "gguf_files.h"

#include <stdio.h>
#include <string.h>

#include "base/base.h"
#include "model/gguf.h"

/* ---- the writer: it does not mind what it is told ---- */

static void put(struct qt_writer *w, const void *data, size_t size)
{
    QUIRE_CHECK(size <= sizeof w->bytes - w->size);
    if (size != 0)
        memcpy(w->bytes + w->size, data, size);
    w->size += size;
}

static void put_u32(struct qt_writer *w, uint32_t value)
{
    put(w, &value, sizeof value);
}

static void put_u64(struct qt_writer *w, uint64_t value)
{
    put(w, &value, sizeof value);
}

static void put_string(struct qt_writer *w, const char *text)
{
    put_u64(w, strlen(text));
    put(w, text, strlen(text));
}

static void put_zeros(struct qt_writer *w, size_t count)
{
    for (size_t i = 0; i < count; i++)
        put(w, "", 1);
}

static void pad(struct qt_writer *w, size_t alignment)
{
    while (w->size % alignment != 0)
        put_zeros(w, 1);
}

static void put_header(struct qt_writer *w, uint64_t tensors, uint64_t keys)
{
    put(w, "GGUF", 4);
    put_u32(w, 3);
    put_u64(w, tensors);
    put_u64(w, keys);
}

static void put_key(struct qt_writer *w, const char *name, uint32_t type)
{
    put_string(w, name);
    put_u32(w, type);
}

static void put_key_u32(struct qt_writer *w, const char *name, uint32_t value)
{
    put_key(w, name, QUIRE__GGUF_U32);
    put_u32(w, value);
}

static void put_key_string(struct qt_writer *w, const char *name, const char *value)
{
    put_key(w, name, QUIRE__GGUF_STRING);
    put_string(w, value);
}

static void put_key_array(struct qt_writer *w, const char *name, uint32_t type, uint64_t count)
{
    put_key(w, name, QUIRE__GGUF_ARRAY);
    put_u32(w, type);
    put_u64(w, count);
}

/* A matrix; rows 0: a vector. */
static void put_tensor(struct qt_writer *w, const char *name, uint32_t type, const uint64_t dims[2],
                       uint64_t offset)
{
    uint32_t num_dims = dims[1] != 0 ? 2 : 1;
    put_string(w, name);
    put_u32(w, num_dims);
    put(w, dims, num_dims * sizeof dims[0]);
    put_u32(w, type);
    put_u64(w, offset);
}

#define DIMS(...)                                                                                  \
    (const uint64_t[2])                                                                            \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }

/* ---- good files ---- */

static void put_scalars(struct qt_writer *w)
{
    put_key(w, "t.u8", QUIRE__GGUF_U8);
    put(w, "\xfe", 1);
    put_key(w, "t.i8", QUIRE__GGUF_I8);
    put(w, "\xfe", 1);
    put_key(w, "t.u16", QUIRE__GGUF_U16);
    put(w, "\x34\xf2", 2);
    put_key(w, "t.i16", QUIRE__GGUF_I16);
    put(w, "\x34\x72", 2);
    put_key_u32(w, "t.u32", 4000000000u);
    put_key(w, "t.i32", QUIRE__GGUF_I32);
    put_u32(w, (uint32_t)-5);
    put_key(w, "t.u64", QUIRE__GGUF_U64);
    put_u64(w, UINT64_MAX);
    put_key(w, "t.i64", QUIRE__GGUF_I64);
    put_u64(w, INT64_MAX);
    put_key(w, "t.f32", QUIRE__GGUF_F32);
    put(w, &(float){1.5f}, 4);
    put_key(w, "t.f64", QUIRE__GGUF_F64);
    put(w, &(double){-0.25}, 8);
    put_key(w, "t.f64_wide", QUIRE__GGUF_F64);
    put(w, &(double){1e300}, 8);
    put_key(w, "t.true", QUIRE__GGUF_BOOL);
    put(w, "\1", 1);
    put_key(w, "t.false", QUIRE__GGUF_BOOL);
    put(w, "\0", 1);
}

/* Every type of value, an alignment of its own, tensors in another order than their data. */
static void good(struct qt_writer *w)
{
    put_header(w, QT_GGUF_TENSORS, QT_GGUF_KEYS);
    put_scalars(w); /* 13 keys */
    put_key_u32(w, "general.alignment", 64);
    put_key_string(w, "t.string", "quire");
    put_key_array(w, "a.strings", QUIRE__GGUF_STRING, 3);
    put_string(w, "one");
    put_string(w, "");
    put_string(w, "three");
    put_key_array(w, "a.i32", QUIRE__GGUF_I32, 2);
    put_u32(w, 7);
    put_u32(w, (uint32_t)-7);
    put_key_array(w, "a.f32", QUIRE__GGUF_F32, 1);
    put(w, &(float){0.5f}, 4);
    put_key_array(w, "a.u64", QUIRE__GGUF_U64, 1);
    put_u64(w, UINT64_MAX);
    put_key_array(w, "a.empty", QUIRE__GGUF_BOOL, 0);
    put_tensor(w, "vector", QUIRE_W_F32, DIMS(5), 192);
    put_tensor(w, "blk.0.matrix", QUIRE_W_Q4_0, DIMS(64, 3), 64);
    put_tensor(w, "one", QUIRE_W_BF16, DIMS(1), 0);
    pad(w, 64);
    put_zeros(w, 192);
    put(w, (float[]){1, 2, 3, 4, 5}, 20);
}

static void good_empty(struct qt_writer *w)
{
    put_header(w, 0, 0);
}

/* The skeleton of a one-layer model. */
static void good_model(struct qt_writer *w)
{
    static const char *const names[] = {"attn_q", "attn_k",   "attn_v",  "attn_output",
                                        "ffn_up", "ffn_gate", "ffn_down"};
    put_header(w, 2 + QUIRE_ARRAY_LEN(names), 9);
    put_key_string(w, "general.architecture", "llama");
    put_key_u32(w, "llama.block_count", 1);
    put_key_u32(w, "llama.embedding_length", 16);
    put_key_u32(w, "llama.feed_forward_length", 16);
    put_key_u32(w, "llama.attention.head_count", 1);
    put_key_string(w, "tokenizer.ggml.model", "gpt2");
    put_key_array(w, "tokenizer.ggml.tokens", QUIRE__GGUF_STRING, 3);
    put_string(w, "a");
    put_string(w, "b");
    put_string(w, "ab");
    put_key_array(w, "tokenizer.ggml.token_type", QUIRE__GGUF_I32, 3);
    put(w, (int32_t[]){1, 1, 1}, 12);
    put_key_array(w, "tokenizer.ggml.merges", QUIRE__GGUF_STRING, 1);
    put_string(w, "a b");
    put_tensor(w, "token_embd.weight", QUIRE_W_BF16, DIMS(16, 3), 0);
    put_tensor(w, "output_norm.weight", QUIRE_W_F32, DIMS(16), 96);
    for (uint32_t i = 0; i < QUIRE_ARRAY_LEN(names); i++) {
        char name[64];
        (void)snprintf(name, sizeof name, "blk.0.%s.weight", names[i]);
        put_tensor(w, name, QUIRE_W_F16, DIMS(16, 4), 160 + 128 * i);
    }
    pad(w, 32);
    put_zeros(w, 160 + 128 * QUIRE_ARRAY_LEN(names));
}

/* ---- bad files ---- */

static void empty(struct qt_writer *w)
{
    w->size = 0;
}

static void short_magic(struct qt_writer *w)
{
    put(w, "GG", 2);
}

static void other_magic(struct qt_writer *w)
{
    put(w,
        "\x7f"
        "ELF and more",
        13);
}

static void with_version(struct qt_writer *w, uint32_t version)
{
    good(w);
    memcpy(w->bytes + 4, &version, 4);
}

static void big_endian(struct qt_writer *w)
{
    with_version(w, 0x03000000u);
}

static void version_1(struct qt_writer *w)
{
    with_version(w, 1);
}

static void version_2(struct qt_writer *w)
{
    with_version(w, 2);
}

static void version_4(struct qt_writer *w)
{
    with_version(w, 4);
}

static void many_tensors(struct qt_writer *w)
{
    put_header(w, 1000, 0);
    put_zeros(w, 2000);
}

static void endless_tensors(struct qt_writer *w)
{
    put_header(w, UINT64_MAX, 0);
}

static void endless_keys(struct qt_writer *w)
{
    put_header(w, 0, UINT64_MAX / 14);
}

static void key_missing(struct qt_writer *w)
{
    put_header(w, 0, 2);
    put_key_string(w, "general.name", "abcdefghijk");
}

static void key_name_endless(struct qt_writer *w)
{
    put_header(w, 0, 1);
    put_u64(w, UINT64_MAX);
    put_zeros(w, 40);
}

static void key_name_empty(struct qt_writer *w)
{
    put_header(w, 0, 1);
    put_key_u32(w, "", 1);
    put_zeros(w, 8);
}

static void key_name_control(struct qt_writer *w)
{
    put_header(w, 0, 1);
    put_key_u32(w, "a\033[2Jb", 1);
}

static void key_twice(struct qt_writer *w)
{
    put_header(w, 0, 3);
    put_key_u32(w, "key.b", 1);
    put_key_u32(w, "key.a", 2);
    put_key_u32(w, "key.b", 3);
}

static void value_type(struct qt_writer *w)
{
    put_header(w, 0, 1);
    put_key_u32(w, "key", 1);
    memcpy(w->bytes + w->size - 8, &(uint32_t){13}, 4);
}

static void string_long(struct qt_writer *w)
{
    put_header(w, 0, 1);
    put_key(w, "general.name", QUIRE__GGUF_STRING);
    put_u64(w, 5);
    put(w, "four", 4);
}

static void string_endless(struct qt_writer *w)
{
    put_header(w, 0, 1);
    put_key(w, "general.name", QUIRE__GGUF_STRING);
    put_u64(w, UINT64_MAX - 7);
}

static void array_type(struct qt_writer *w)
{
    put_header(w, 0, 1);
    put_key_array(w, "key", 99, 1);
    put_zeros(w, 8);
}

static void array_nested(struct qt_writer *w)
{
    put_header(w, 0, 1);
    put_key_array(w, "key", QUIRE__GGUF_ARRAY, 1);
    put_u32(w, QUIRE__GGUF_U8);
    put_u64(w, 0);
}

static void array_overflow(struct qt_writer *w)
{
    put_header(w, 0, 1);
    put_key_array(w, "key", QUIRE__GGUF_U64, UINT64_MAX / 8 + 1);
}

static void array_long(struct qt_writer *w)
{
    put_header(w, 0, 1);
    put_key_array(w, "key", QUIRE__GGUF_U32, 3);
    put_zeros(w, 11);
}

static void strings_endless(struct qt_writer *w)
{
    put_header(w, 0, 1);
    put_key_array(w, "tokens", QUIRE__GGUF_STRING, UINT64_MAX);
    put_zeros(w, 64);
}

static void strings_long(struct qt_writer *w)
{
    put_header(w, 0, 1);
    put_key_array(w, "tokens", QUIRE__GGUF_STRING, 2);
    put_string(w, "longer than eight");
    put_u64(w, 1);
}

static void bool_two(struct qt_writer *w)
{
    put_header(w, 0, 1);
    put_key(w, "key", QUIRE__GGUF_BOOL);
    put(w, "\2", 1);
}

static void bool_array_two(struct qt_writer *w)
{
    put_header(w, 0, 1);
    put_key_array(w, "key", QUIRE__GGUF_BOOL, 3);
    put(w, "\0\1\2", 3);
}

static void with_alignment(struct qt_writer *w, uint32_t type, uint64_t value)
{
    put_header(w, 1, 1);
    put_key(w, "general.alignment", type);
    put(w, &value, type == QUIRE__GGUF_U64 ? 8 : 4);
    put_tensor(w, "t", QUIRE_W_F32, DIMS(1), 0);
    pad(w, 32);
    put_zeros(w, 32);
}

static void alignment_zero(struct qt_writer *w)
{
    with_alignment(w, QUIRE__GGUF_U32, 0);
}

static void alignment_small(struct qt_writer *w)
{
    with_alignment(w, QUIRE__GGUF_U32, 4);
}

static void alignment_uneven(struct qt_writer *w)
{
    with_alignment(w, QUIRE__GGUF_U32, 48);
}

static void alignment_negative(struct qt_writer *w)
{
    with_alignment(w, QUIRE__GGUF_I32, 0xffffffe0u);
}

static void alignment_float(struct qt_writer *w)
{
    with_alignment(w, QUIRE__GGUF_F32, 32);
}

static void alignment_huge(struct qt_writer *w)
{
    with_alignment(w, QUIRE__GGUF_U64, (uint64_t)1 << 63);
}

/* One tensor, then a kilobyte of data. */
static void one_tensor(struct qt_writer *w, const char *name, uint32_t type, const uint64_t dims[2],
                       uint64_t offset)
{
    put_header(w, 1, 0);
    put_tensor(w, name, type, dims, offset);
    pad(w, 32);
    put_zeros(w, 1024);
}

static void tensor_name_empty(struct qt_writer *w)
{
    one_tensor(w, "", QUIRE_W_F32, DIMS(4), 0);
}

static void tensor_name_control(struct qt_writer *w)
{
    one_tensor(w, "a\nb", QUIRE_W_F32, DIMS(4), 0);
}

static void tensor_name_long(struct qt_writer *w)
{
    char name[1001];
    memset(name, 'n', 1000);
    name[1000] = 0;
    one_tensor(w, name, QUIRE_W_F32, DIMS(0), 0);
}

static void tensor_twice(struct qt_writer *w)
{
    put_header(w, 2, 0);
    put_tensor(w, "twin", QUIRE_W_F32, DIMS(4), 0);
    put_tensor(w, "twin", QUIRE_W_F32, DIMS(4), 32);
    pad(w, 32);
    put_zeros(w, 64);
}

static void with_num_dims(struct qt_writer *w, uint32_t num_dims)
{
    one_tensor(w, "t", QUIRE_W_F32, DIMS(4, 4), 0);
    memcpy(w->bytes + 24 + 9, &num_dims, 4);
}

static void dims_none(struct qt_writer *w)
{
    with_num_dims(w, 0);
}

static void dims_five(struct qt_writer *w)
{
    with_num_dims(w, 5);
}

static void dim_zero(struct qt_writer *w)
{
    one_tensor(w, "t", QUIRE_W_F32, DIMS(0), 0);
}

static void dims_overflow(struct qt_writer *w)
{
    one_tensor(w, "t", QUIRE_W_F32, DIMS((uint64_t)1 << 33, (uint64_t)1 << 33), 0);
}

static void bytes_overflow(struct qt_writer *w)
{
    one_tensor(w, "t", QUIRE_W_F32, DIMS((uint64_t)1 << 31, (uint64_t)1 << 31), 0);
}

static void columns_uneven(struct qt_writer *w)
{
    one_tensor(w, "t", QUIRE_W_Q6_K, DIMS(128, 2), 0);
}

static void tensor_type(struct qt_writer *w)
{
    one_tensor(w, "blk.0.attn_output.weight", 20, DIMS(4), 0);
}

static void tensor_type_endless(struct qt_writer *w)
{
    one_tensor(w, "t", UINT32_MAX, DIMS(4), 0);
}

static void data_misaligned(struct qt_writer *w)
{
    one_tensor(w, "t", QUIRE_W_F32, DIMS(4), 48);
}

static void data_long(struct qt_writer *w)
{
    one_tensor(w, "t", QUIRE_W_F32, DIMS(257), 0);
}

static void data_behind(struct qt_writer *w)
{
    one_tensor(w, "t", QUIRE_W_F32, DIMS(1), 1024);
}

static void data_endless(struct qt_writer *w)
{
    one_tensor(w, "t", QUIRE_W_F32, DIMS(1), UINT64_MAX - 31);
}

static void data_overlap(struct qt_writer *w)
{
    put_header(w, 3, 0);
    put_tensor(w, "last", QUIRE_W_F32, DIMS(8), 64);
    put_tensor(w, "first", QUIRE_W_F32, DIMS(9), 0);
    put_tensor(w, "middle", QUIRE_W_F32, DIMS(8), 32);
    pad(w, 32);
    put_zeros(w, 96);
}

/* What a flipped bit of the first tensor's type looks like: Q4_1 read as the smaller Q4_0. */
static void data_gap(struct qt_writer *w)
{
    put_header(w, 2, 0);
    put_tensor(w, "first", QUIRE_W_Q4_0, DIMS(512), 0);
    put_tensor(w, "second", QUIRE_W_F32, DIMS(8), 320);
    pad(w, 32);
    put_zeros(w, 352);
}

#define BAD(build, code, says)                                                                     \
    {                                                                                              \
#build, (build), QUIRE_E_##code, (says)                                                    \
    }

const struct qt_gguf_file qt_gguf_files[] = {
    {"good", good, QUIRE_OK, NULL},
    {"good_empty", good_empty, QUIRE_OK, NULL},
    {"good_model", good_model, QUIRE_OK, NULL},
    BAD(empty, CORRUPT, "the file is empty"),
    BAD(short_magic, CORRUPT, "header at byte 0: the magic of 4 bytes passes the end of the file"),
    BAD(other_magic, CORRUPT, "not a GGUF file"),
    BAD(big_endian, UNSUPPORTED, "a big-endian GGUF file"),
    BAD(version_1, VERSION, "GGUF version 1, but only version 3 is supported"),
    BAD(version_2, VERSION, "GGUF version 2, but only version 3 is supported"),
    BAD(version_4, VERSION, "GGUF version 4, but only version 3 is supported"),
    BAD(many_tensors, CORRUPT, "header at byte 24: it states 1000 tensors, but at most 61 fit"),
    BAD(endless_tensors, CORRUPT, "it states 18446744073709551615 tensors, but at most 0 fit"),
    BAD(endless_keys, CORRUPT, "keys, but at most 1 fit"),
    BAD(key_missing, CORRUPT, "key at byte 67: a name of 8 bytes passes the end of the file"),
    BAD(key_name_endless, CORRUPT, "key at byte 32: a name of 18446744073709551615 bytes passes"),
    BAD(key_name_empty, CORRUPT, "the name is empty"),
    BAD(key_name_control, CORRUPT, "key 'a?[2Jb' at byte 38: the name has the control character"),
    BAD(key_twice, CORRUPT, "key 'key.b' at byte 74: the key comes twice, first at byte 32"),
    BAD(value_type, CORRUPT, "key 'key' at byte 39: unknown value type 13"),
    BAD(string_long, CORRUPT, "key 'general.name' at byte 56: a string of 5 bytes passes the end"),
    BAD(string_endless, CORRUPT, "a string of 18446744073709551608 bytes passes the end"),
    BAD(array_type, CORRUPT, "unknown element type 99"),
    BAD(array_nested, UNSUPPORTED, "key 'key' at byte 51: an array of arrays"),
    BAD(array_overflow, CORRUPT, "an array states 2305843009213693952 elements"),
    BAD(array_long, CORRUPT, "a value of 12 bytes passes the end of the file"),
    BAD(strings_endless, CORRUPT, "18446744073709551615 strings pass the end of the file"),
    BAD(strings_long, CORRUPT, "a string of 1 bytes passes the end of the file"),
    BAD(bool_two, CORRUPT, "a boolean is 2, not 0 or 1"),
    BAD(bool_array_two, CORRUPT, "a boolean is 2, not 0 or 1"),
    BAD(alignment_zero, CORRUPT, "key 'general.alignment' at byte 53: the value is not a power"),
    BAD(alignment_small, CORRUPT, "not a power of two of at least 8"),
    BAD(alignment_uneven, CORRUPT, "not a power of two of at least 8"),
    BAD(alignment_negative, CORRUPT, "not a power of two of at least 8"),
    BAD(alignment_float, CORRUPT, "not a power of two of at least 8"),
    BAD(alignment_huge, CORRUPT, "its data of 4 bytes passes the end of the file"),
    BAD(tensor_name_empty, CORRUPT, "the name is empty"),
    BAD(tensor_name_control, CORRUPT, "tensor 'a?b' at byte 35: the name has the control"),
    BAD(tensor_name_long, CORRUPT, "nnnn...' at byte 1044: dimension 0 is 0"),
    BAD(tensor_twice, CORRUPT, "tensor 'twin' at byte 68: the tensor comes twice, first at byte"),
    BAD(dims_none, CORRUPT, "it states 0 dimensions, not 1 to 4"),
    BAD(dims_five, CORRUPT, "it states 5 dimensions, not 1 to 4"),
    BAD(dim_zero, CORRUPT, "dimension 0 is 0"),
    BAD(dims_overflow, CORRUPT, "the product of its dimensions is over 64 bits"),
    BAD(bytes_overflow, CORRUPT, "the product of its dimensions is over 64 bits"),
    BAD(columns_uneven, CORRUPT, "128 columns do not fill whole blocks of Q6_K"),
    BAD(tensor_type, UNSUPPORTED,
        "tensor 'blk.0.attn_output.weight' at byte 72: unsupported type 20; convert the model to "
        "one of F32 F16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q4_K Q5_K Q6_K BF16"),
    BAD(tensor_type_endless, UNSUPPORTED, "unsupported type 4294967295"),
    BAD(data_misaligned, CORRUPT, "its data offset 48 is not a multiple of the alignment 32"),
    BAD(data_long, CORRUPT, "tensor 't' at byte 32: its data of 1028 bytes passes the end"),
    BAD(data_behind, CORRUPT, "its data of 4 bytes passes the end of the file"),
    BAD(data_endless, CORRUPT, "its data of 4 bytes passes the end of the file"),
    BAD(data_overlap, CORRUPT, "tensor 'middle' at byte 192: its data overlaps that of 'first'"),
    BAD(data_gap, CORRUPT,
        "tensor 'second' at byte 448: its data leaves a gap behind that of 'first'"),
};

const size_t qt_gguf_num_files = QUIRE_ARRAY_LEN(qt_gguf_files);
