/* prompt.c - from what the user gave to the ids that the model reads.
 * SPDX-License-Identifier: Apache-2.0 */
#include "quire/prompt.h"

#include <string.h>

#include "quire/console.h"
#include "quire/files.h"

/* ---- the template ---- */

/* The model's own template, or the named one with the model's default system message. */
int prompt_style_init(struct prompt_style *style, const struct engine *engine,
                      const struct prompt_options *options)
{
    *style = (struct prompt_style){0};
    if (options->raw || options->ids != NULL)
        return CLI_OK;
    struct quire_error error;
    struct quire__gguf_string key = {0};
    enum quire__template_kind kind = QUIRE__TEMPLATE_CHATML;
    quire_status found = quire__gguf_str(engine->gguf, "tokenizer.chat_template", &key);
    struct quire__text source = {.bytes = key.data, .count = key.size};
    if (options->template_name != NULL) {
        if (quire__template_by_name(options->template_name, &kind, &error) != QUIRE_OK) {
            cli_error("--template: %s", error.message);
            return CLI_BAD_USAGE;
        }
    } else if (found == QUIRE_E_NOTFOUND) {
        if (options->system != NULL) {
            cli_error("%s has no chat template, so --system has no place: name one with --template",
                      engine->options->model);
            return CLI_BAD_DATA;
        }
        cli_notice("%s has no chat template: completing the text as it is", engine->options->model);
        return CLI_OK;
    } else if (found != QUIRE_OK) {
        cli_error("%s: key tokenizer.chat_template is no string: use --template or --raw",
                  engine->options->model);
        return CLI_BAD_DATA;
    } else if (quire__template_detect(source, &kind, &error) != QUIRE_OK) {
        cli_error("%s: %s", engine->options->model, error.message);
        return CLI_BAD_DATA;
    }
    if (quire__template_init(&style->turns, kind, source, engine->tokenizer, &error) != QUIRE_OK) {
        cli_error("%s: %s", engine->options->model, error.message);
        return CLI_BAD_DATA;
    }
    style->templated = true;
    return CLI_OK;
}

void prompt_style_deinit(struct prompt_style *style)
{
    if (style->templated)
        quire__template_deinit(&style->turns);
    style->templated = false;
}

/* ---- texts ---- */

int prompt_check_text(const char *where, struct quire__text text)
{
    uint64_t bad = 0;
    if (text.count == 0) {
        cli_error("%s is empty: give the model something to read", where);
        return CLI_BAD_DATA;
    }
    const char *nul = memchr(text.bytes, 0, text.count);
    if (nul != NULL) {
        cli_error("%s has a NUL byte at byte %td: give plain text", where, nul - text.bytes);
        return CLI_BAD_DATA;
    }
    if (!quire__utf8_check(text.bytes, text.count, &bad)) {
        cli_error("%s is not UTF-8 at byte %llu: convert it, as with iconv", where,
                  (unsigned long long)bad);
        return CLI_BAD_DATA;
    }
    return CLI_OK;
}

/* A text as it is, with BOS in front where the model wants it and the text does not bring it. */
static quire_status begin_raw(const struct engine *engine, struct quire__text text,
                              struct quire__ids *ids, struct quire_error *error)
{
    const uint64_t first = ids->count;
    const uint32_t bos = quire__tokenizer_bos(engine->tokenizer);
    quire_status status = QUIRE_OK;
    if (quire__tokenizer_add_bos(engine->tokenizer))
        status = quire__ids_push(ids, bos, error);
    const uint64_t start = ids->count;
    if (status == QUIRE_OK)
        status =
            quire__tokenizer_encode(engine->tokenizer, text.bytes, text.count, true, ids, error);
    if (status == QUIRE_OK && start > first && ids->count > start && ids->ids[start] == bos) {
        ids->count--;
        memmove(ids->ids + first, ids->ids + start, (ids->count - first) * sizeof *ids->ids);
    }
    return status;
}

int prompt_begin(const struct prompt_style *style, const struct engine *engine, const char *system,
                 struct quire__text text, struct quire__ids *ids)
{
    struct quire_error error;
    quire_status status = QUIRE_OK;
    if (style->templated) {
        struct quire__text message = {.bytes = system, .count = system ? strlen(system) : 0};
        status = quire__template_begin(&style->turns, system != NULL ? &message : NULL, text, ids,
                                       &error);
        if (status == QUIRE_OK)
            status = quire__template_open_assistant(&style->turns, ids, &error);
    } else {
        status = begin_raw(engine, text, ids, &error);
    }
    return status == QUIRE_OK ? CLI_OK : cli_fail(&error);
}

int prompt_continue(const struct prompt_style *style, const struct engine *engine,
                    struct quire__text text, struct quire__ids *ids)
{
    struct quire_error error;
    quire_status status = QUIRE_OK;
    if (style->templated) {
        status = quire__template_close_assistant(&style->turns, ids, &error);
        if (status == QUIRE_OK)
            status = quire__template_append(&style->turns, QUIRE__ROLE_USER, text, ids, &error);
        if (status == QUIRE_OK)
            status = quire__template_open_assistant(&style->turns, ids, &error);
    } else {
        status =
            quire__tokenizer_encode(engine->tokenizer, text.bytes, text.count, true, ids, &error);
    }
    return status == QUIRE_OK ? CLI_OK : cli_fail(&error);
}

static int load_text(const struct prompt_style *style, const struct engine *engine,
                     const struct prompt_options *options, struct quire__ids *ids)
{
    struct quire__bytes file = {0};
    const char *where = "the prompt";
    int result = CLI_OK;
    struct quire__text text = {.bytes = options->text,
                               .count = options->text != NULL ? strlen(options->text) : 0};
    if (options->text == NULL) {
        const char *path = options->file != NULL ? options->file : "-";
        where = strcmp(path, "-") == 0 ? "standard input" : path;
        result = files_read(path, &file);
        text = (struct quire__text){.bytes = file.data, .count = file.count};
    }
    if (result == CLI_OK)
        result = prompt_check_text(where, text);
    if (result == CLI_OK && options->system != NULL && options->system[0] != '\0') {
        struct quire__text system = {.bytes = options->system, .count = strlen(options->system)};
        result = prompt_check_text("--system", system);
    }
    if (result == CLI_OK)
        result = prompt_begin(style, engine, options->system, text, ids);
    if (result == CLI_OK && ids->count == 0) {
        cli_error("%s has no token in the vocabulary of the model", where);
        result = CLI_BAD_DATA;
    }
    quire__bytes_deinit(&file);
    return result;
}

static int load_ids(const struct engine *engine, const char *path, struct quire__ids *ids)
{
    struct quire__bytes text = {0};
    int result = files_read(path, &text);
    if (result == CLI_OK)
        result = files_parse_ids(path, &text, quire__tokenizer_vocab_size(engine->tokenizer), ids);
    if (result == CLI_OK && ids->count == 0) {
        cli_error("%s is an empty list: give the model at least one token", path);
        result = CLI_BAD_DATA;
    }
    quire__bytes_deinit(&text);
    return result;
}

int prompt_load(const struct prompt_style *style, const struct engine *engine,
                const struct prompt_options *options, struct quire__ids *ids)
{
    return options->ids != NULL ? load_ids(engine, options->ids, ids)
                                : load_text(style, engine, options, ids);
}
