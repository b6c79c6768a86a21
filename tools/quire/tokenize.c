/* tokenize.c - quire tokenize: text to a JSON array of ids, and back to bytes.
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "quire/commands.h"
#include "quire/console.h"
#include "quire/engine.h"
#include "quire/files.h"

struct options {
    struct engine_options engine;
    const char *text, *file, *dash;
    bool decode, bos;
};

/* Text of -p, -f or standard input, as bytes. */
static int read_text(const struct options *options, struct quire__bytes *text)
{
    struct quire_error error;
    if (options->text == NULL)
        return files_read(options->file != NULL ? options->file : "-", text);
    return quire__bytes_append(text, options->text, strlen(options->text), &error) == QUIRE_OK
               ? CLI_OK
               : cli_fail(&error);
}

static int decode(const struct engine *engine, const struct quire__bytes *text)
{
    struct quire_error error;
    struct quire__ids ids = {0};
    struct quire__bytes out = {0};
    int result =
        files_parse_ids("the input", text, quire__tokenizer_vocab_size(engine->tokenizer), &ids);
    for (uint64_t i = 0; i < ids.count && result == CLI_OK; i++) {
        const char *piece = NULL;
        uint64_t count = 0;
        if (quire__tokenizer_piece(engine->tokenizer, ids.ids[i], &piece, &count, &error) !=
                QUIRE_OK ||
            quire__bytes_append(&out, piece, count, &error) != QUIRE_OK)
            result = cli_fail(&error);
    }
    if (result == CLI_OK && out.count > 0 && !cli_write(out.data, out.count))
        result = CLI_BAD_DATA;
    quire__bytes_deinit(&out);
    quire__ids_deinit(&ids);
    return result;
}

static int encode(const struct engine *engine, const struct options *options,
                  const struct quire__bytes *text)
{
    struct quire_error error;
    struct quire__ids ids = {0};
    uint32_t bos = quire__tokenizer_bos(engine->tokenizer);
    if (options->bos && bos == QUIRE__TOKEN_NONE) {
        cli_error("%s has no BOS token: leave --bos out", options->engine.model);
        return CLI_BAD_DATA;
    }
    quire_status status = options->bos ? quire__ids_push(&ids, bos, &error) : QUIRE_OK;
    if (status == QUIRE_OK)
        status =
            quire__tokenizer_encode(engine->tokenizer, text->data, text->count, true, &ids, &error);
    int result = status == QUIRE_OK ? files_print_json(files_json_ids(ids.ids, ids.count))
                                    : cli_fail(&error);
    quire__ids_deinit(&ids);
    return result;
}

int command_tokenize(int argc, char **argv)
{
    struct options options = {.engine = ENGINE_OPTIONS_DEFAULT};
    struct cli_arg shared[ENGINE_ARGS_CONTEXT];
    engine_args(&options.engine, shared);
    const struct cli_arg args[] = {
        {"-p", CLI_TEXT, &options.text, 0, 0, "TEXT", "the text; may be empty"},
        {"-f", CLI_TEXT, &options.file, 0, 0, "FILE", "a file with the text; - is stdin"},
        {"--decode", CLI_FLAG, &options.decode, 0, 0, NULL,
         "the text is a JSON array of ids: print their bytes"},
        {"--bos", CLI_FLAG, &options.bos, 0, 0, NULL, "put BOS in front"},
    };
    const struct cli_command command = {
        .name = "tokenize",
        .synopsis = "-m MODEL [-p TEXT | -f FILE | -] [--bos] [--decode]",
        .about = "Prints the token ids of a text as a JSON array. Markers as <|im_end|> in the "
                 "text are tokens.\nWithout -p or -f the text is read from standard input.",
        .example = "quire tokenize -m model.gguf -p \"Hello, world!\"",
        .args = args,
        .num_args = QUIRE_ARRAY_LEN(args),
        .shared = shared,
        .num_shared = ENGINE_ARGS_FILE,
        .positional = "-",
        .positional_value = &options.dash,
    };
    enum cli_parsed parsed = cli_parse(&command, argc, argv);
    if (parsed != CLI_PARSED)
        return parsed == CLI_HELPED ? CLI_OK : CLI_BAD_USAGE;
    if (options.dash != NULL && strcmp(options.dash, "-") != 0) {
        cli_error("tokenize: unexpected argument %s: give text with -p or -f", options.dash);
        return CLI_BAD_USAGE;
    }
    if ((options.text != NULL) + (options.file != NULL) + (options.dash != NULL) > 1) {
        cli_error("tokenize: -p, -f and - exclude each other: give one of them");
        return CLI_BAD_USAGE;
    }
    struct engine engine;
    struct quire__bytes text = {0};
    int result = engine_open_file(&engine, &options.engine, true);
    if (result == CLI_OK)
        result = read_text(&options, &text);
    if (result == CLI_OK)
        result = options.decode ? decode(&engine, &text) : encode(&engine, &options, &text);
    quire__bytes_deinit(&text);
    engine_close(&engine);
    return result;
}
