/* template.c - chat templates: turns of a conversation as token ids.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Every format is: open marker, role, header end (marker or plain text), message, close marker.
 * Plain text between two markers is encoded as one, because that is how the whole conversation
 * would be: "user\n" and the message meet inside one text. */
#include "model/template.h"

#include <string.h>

struct format {
    const char *name;
    const char *open, *header_end, *close; /* markers; header_end may be NULL */
    const char *after_header, *after_close;
    const char *assistant; /* the role's name */
    const char *bos;       /* first token, when the vocabulary names no other; NULL: as it says */
    const char *excluded;  /* a template with this text is of another kind; or NULL */
    bool trims;
    bool has_system;
};

static const struct format formats[QUIRE__TEMPLATE_COUNT] = {
    [QUIRE__TEMPLATE_CHATML] = {.name = "chatml",
                                .open = "<|im_start|>",
                                .close = "<|im_end|>",
                                .after_header = "\n",
                                .after_close = "\n",
                                .assistant = "assistant",
                                .excluded = "<|im_sep|>",
                                .has_system = true},
    [QUIRE__TEMPLATE_LLAMA3] = {.name = "llama3",
                                .open = "<|start_header_id|>",
                                .header_end = "<|end_header_id|>",
                                .close = "<|eot_id|>",
                                .after_header = "\n\n",
                                .after_close = "",
                                .assistant = "assistant",
                                .bos = "<|begin_of_text|>",
                                .trims = true,
                                .has_system = true},
    [QUIRE__TEMPLATE_GEMMA] = {.name = "gemma",
                               .open = "<start_of_turn>",
                               .close = "<end_of_turn>",
                               .after_header = "\n",
                               .after_close = "\n",
                               .assistant = "model",
                               .bos = "<bos>",
                               .trims = true},
};

/* ---- recognition ---- */

static struct quire__text text_of(const char *string)
{
    return (struct quire__text){string, strlen(string)};
}

/* The first place of `needle` at or after `from`, or text.count. */
static uint64_t find(struct quire__text text, uint64_t from, const char *needle)
{
    const char *found = from < text.count
                            ? memmem(text.bytes + from, text.count - from, needle, strlen(needle))
                            : NULL;
    return found != NULL ? (uint64_t)(found - text.bytes) : text.count;
}

static bool contains(struct quire__text text, const char *needle)
{
    return find(text, 0, needle) < text.count;
}

quire_status quire__template_detect(struct quire__text source, enum quire__template_kind *kind,
                                    struct quire_error *error)
{
    for (unsigned i = 0; i < QUIRE__TEMPLATE_COUNT; i++) {
        const struct format *format = &formats[i];
        if (contains(source, format->open) &&
            (format->header_end == NULL || contains(source, format->header_end)) &&
            (format->excluded == NULL || !contains(source, format->excluded))) {
            *kind = (enum quire__template_kind)i;
            return QUIRE_OK;
        }
    }
    return quire__fail(error, QUIRE_E_UNSUPPORTED,
                       "the model's chat template is of an unknown kind: name one with --template "
                       "(chatml, llama3, gemma), or use --raw to complete the prompt as it is");
}

quire_status quire__template_by_name(const char *name, enum quire__template_kind *kind,
                                     struct quire_error *error)
{
    char quoted[48];
    for (unsigned i = 0; i < QUIRE__TEMPLATE_COUNT; i++) {
        if (strcmp(name, formats[i].name) == 0) {
            *kind = (enum quire__template_kind)i;
            return QUIRE_OK;
        }
    }
    return quire__fail(error, QUIRE_E_INVAL,
                       "there is no chat template '%s' (known: chatml, llama3, gemma)",
                       quire__quote(name, strlen(name), quoted, sizeof(quoted)));
}

const char *quire__template_name(enum quire__template_kind kind)
{
    return formats[kind].name;
}

/* ---- the default system message ---- */

/* Copies the string literal that goes on at source.bytes[at] up to `close`, undoing its escapes.
 * False when the literal ends before, or holds template code: then it is no fixed message. quote is
 * 0 for text outside of any literal. */
static bool copy_message(struct quire__text source, uint64_t at, char quote, const char *close,
                         struct quire__bytes *out)
{
    uint64_t close_count = strlen(close);
    for (; at < source.count; at++) {
        char c = source.bytes[at];
        if (source.count - at >= close_count && memcmp(source.bytes + at, close, close_count) == 0)
            return true;
        if (quote != 0 ? c == quote : c == '{')
            return false;
        if (quote != 0 && c == '\\' && at + 1 < source.count) {
            c = source.bytes[++at];
            c = (char)(c == 'n' ? '\n' : c == 't' ? '\t' : c == 'r' ? '\r' : c);
        }
        out->data[out->count++] = c;
    }
    return false;
}

/* Looks for the turn that a template writes when a conversation has no system message: a system
 * turn whose message is fixed text. */
static quire_status find_default_system(struct quire__template *template, struct quire__text source,
                                        struct quire_error *error)
{
    static const char escaped[] = "system\\n", plain[] = "system\n";
    const struct format *format = &formats[template->kind];
    struct quire__bytes *out = &template->default_system;
    uint64_t open_count = strlen(format->open);
    quire_status status = quire__bytes_reserve(out, source.count, error);
    if (status != QUIRE_OK)
        return status;
    for (uint64_t at = find(source, 0, format->open); at < source.count;
         at = find(source, at + 1, format->open)) {
        struct quire__text rest = {source.bytes + at + open_count, source.count - at - open_count};
        char before = at > 0 ? source.bytes[at - 1] : '\0';
        char quote = (char)(before == '\'' || before == '"' ? before : 0);
        uint64_t header = 0;
        if (rest.count >= sizeof(plain) - 1 && memcmp(rest.bytes, plain, sizeof(plain) - 1) == 0)
            header = sizeof(plain) - 1;
        else if (quote != 0 && rest.count >= sizeof(escaped) - 1 &&
                 memcmp(rest.bytes, escaped, sizeof(escaped) - 1) == 0)
            header = sizeof(escaped) - 1;
        out->count = 0;
        if (header != 0 && copy_message(rest, header, quote, format->close, out)) {
            template->has_default_system = true;
            return QUIRE_OK;
        }
    }
    out->count = 0;
    return QUIRE_OK;
}

/* ---- binding to a vocabulary ---- */

static quire_status find_marker(const struct quire__tokenizer *tokenizer,
                                const struct format *format, const char *marker, uint32_t *id,
                                struct quire_error *error)
{
    *id = QUIRE__TOKEN_NONE;
    if (marker == NULL)
        return QUIRE_OK;
    *id = quire__tokenizer_find(tokenizer, marker);
    if (*id != QUIRE__TOKEN_NONE)
        return QUIRE_OK;
    return quire__fail(error, QUIRE_E_MISMATCH,
                       "the vocabulary has no token %s, which the chat template %s needs: use "
                       "another --template, or --raw",
                       marker, format->name);
}

quire_status quire__template_init(struct quire__template *template, enum quire__template_kind kind,
                                  struct quire__text source,
                                  const struct quire__tokenizer *tokenizer,
                                  struct quire_error *error)
{
    const struct format *format = &formats[kind];
    *template = (struct quire__template){.tokenizer = tokenizer, .kind = kind};
    quire_status status = find_marker(tokenizer, format, format->open, &template->open, error);
    if (status == QUIRE_OK)
        status = find_marker(tokenizer, format, format->header_end, &template->header_end, error);
    if (status == QUIRE_OK)
        status = find_marker(tokenizer, format, format->close, &template->close, error);
    template->bos = quire__tokenizer_bos(tokenizer);
    if (status == QUIRE_OK && format->bos != NULL && template->bos == QUIRE__TOKEN_NONE)
        status = find_marker(tokenizer, format, format->bos, &template->bos, error);
    if (format->bos == NULL && !quire__tokenizer_add_bos(tokenizer))
        template->bos = QUIRE__TOKEN_NONE;
    if (template->bos == template->open)
        template->bos = QUIRE__TOKEN_NONE; /* the first turn's marker is BOS already */
    if (status == QUIRE_OK && kind == QUIRE__TEMPLATE_CHATML)
        status = find_default_system(template, source, error);
    if (status != QUIRE_OK)
        quire__template_deinit(template);
    return status;
}

void quire__template_deinit(struct quire__template *template)
{
    quire__bytes_deinit(&template->default_system);
}

/* ---- rendering ---- */

/* Ids under construction, and the plain text since the last marker. */
struct render {
    const struct quire__template *template;
    const struct format *format;
    struct quire__ids *ids;
    uint64_t count_before;
    struct quire__bytes plain;
    struct quire_error *error;
    quire_status status; /* of the first step that failed; the others then do nothing */
};

static struct render render_start(const struct quire__template *template, struct quire__ids *ids,
                                  struct quire_error *error)
{
    return (struct render){.template = template,
                           .format = &formats[template->kind],
                           .ids = ids,
                           .count_before = ids->count,
                           .error = error};
}

static quire_status render_end(struct render *render)
{
    quire__bytes_deinit(&render->plain);
    if (render->status != QUIRE_OK)
        render->ids->count = render->count_before;
    return render->status;
}

static void put_text(struct render *render, struct quire__text text)
{
    if (render->status == QUIRE_OK)
        render->status = quire__bytes_append(&render->plain, text.bytes, text.count, render->error);
}

static void flush(struct render *render)
{
    if (render->status == QUIRE_OK && render->plain.count > 0)
        render->status =
            quire__tokenizer_encode(render->template->tokenizer, render->plain.data,
                                    render->plain.count, false, render->ids, render->error);
    render->plain.count = 0;
}

static void put_marker(struct render *render, uint32_t id)
{
    flush(render);
    if (render->status == QUIRE_OK && id != QUIRE__TOKEN_NONE)
        render->status = quire__ids_push(render->ids, id, render->error);
}

/* White space as str.strip() of the templates' language has it: White_Space of Unicode and the
 * separators U+001C to U+001F. */
static bool is_space(uint32_t code)
{
    return (code >= 0x9 && code <= 0xd) || (code >= 0x1c && code <= 0x20) || code == 0x85 ||
           code == 0xa0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028 ||
           code == 0x2029 || code == 0x202f || code == 0x205f || code == 0x3000;
}

/* The character that begins at bytes, of 1 to 3 bytes; 0 for longer ones, none of which is white
 * space. */
static uint32_t code_at(const char *bytes, int length)
{
    const uint8_t *byte = (const uint8_t *)bytes;
    if (length == 1)
        return byte[0];
    if (length == 2)
        return (byte[0] & 0x1fu) << 6 | (byte[1] & 0x3fu);
    return length == 3 ? (byte[0] & 0xfu) << 12 | (byte[1] & 0x3fu) << 6 | (byte[2] & 0x3fu) : 0;
}

/* text is UTF-8. */
static struct quire__text trim(struct quire__text text)
{
    while (text.count > 0) {
        int length = quire__utf8_length(text.bytes, text.count);
        if (!is_space(code_at(text.bytes, length)))
            break;
        text.bytes += length;
        text.count -= (uint64_t)length;
    }
    while (text.count > 0) {
        uint64_t last = text.count - 1;
        while (((uint8_t)text.bytes[last] & 0xc0) == 0x80)
            last--;
        if (!is_space(code_at(text.bytes + last, (int)(text.count - last))))
            break;
        text.count = last;
    }
    return text;
}

static void put_message(struct render *render, const char *whose, struct quire__text text,
                        bool trims)
{
    uint64_t bad_offset;
    if (render->status != QUIRE_OK)
        return;
    if (!quire__utf8_check(text.bytes, text.count, &bad_offset)) {
        render->status = quire__fail(
            render->error, QUIRE_E_INVAL, "the %s message is not UTF-8: byte 0x%02x at offset %llu",
            whose, (uint8_t)text.bytes[bad_offset], (unsigned long long)bad_offset);
        return;
    }
    put_text(render, trims ? trim(text) : text);
}

static const char *role_name(const struct format *format, enum quire__role role)
{
    return role == QUIRE__ROLE_SYSTEM ? "system"
           : role == QUIRE__ROLE_USER ? "user"
                                      : format->assistant;
}

static void open_turn(struct render *render, enum quire__role role)
{
    put_marker(render, render->template->open);
    put_text(render, text_of(role_name(render->format, role)));
    if (render->template->header_end != QUIRE__TOKEN_NONE)
        put_marker(render, render->template->header_end);
    put_text(render, text_of(render->format->after_header));
}

static void close_turn(struct render *render)
{
    put_marker(render, render->template->close);
    put_text(render, text_of(render->format->after_close));
    flush(render);
}

static void put_turn(struct render *render, enum quire__role role, struct quire__text text)
{
    open_turn(render, role);
    put_message(render, role_name(render->format, role), text, render->format->trims);
    close_turn(render);
}

quire_status quire__template_begin(const struct quire__template *template,
                                   const struct quire__text *system, struct quire__text user,
                                   struct quire__ids *ids, struct quire_error *error)
{
    struct render render = render_start(template, ids, error);
    struct quire__text fallback = {template->default_system.data, template->default_system.count};
    if (system == NULL && template->has_default_system)
        system = &fallback;
    put_marker(&render, template->bos);
    if (system != NULL && render.format->has_system)
        put_turn(&render, QUIRE__ROLE_SYSTEM, *system);
    open_turn(&render, QUIRE__ROLE_USER);
    if (system != NULL && !render.format->has_system) {
        put_message(&render, "system", *system, false);
        put_text(&render, text_of("\n\n"));
    }
    put_message(&render, "user", user, render.format->trims);
    close_turn(&render);
    return render_end(&render);
}

quire_status quire__template_append(const struct quire__template *template, enum quire__role role,
                                    struct quire__text text, struct quire__ids *ids,
                                    struct quire_error *error)
{
    struct render render = render_start(template, ids, error);
    if (role == QUIRE__ROLE_SYSTEM && !render.format->has_system)
        return quire__fail(error, QUIRE_E_UNSUPPORTED,
                           "the chat template %s has no system turn after the beginning",
                           render.format->name);
    put_turn(&render, role, text);
    return render_end(&render);
}

quire_status quire__template_open_assistant(const struct quire__template *template,
                                            struct quire__ids *ids, struct quire_error *error)
{
    struct render render = render_start(template, ids, error);
    open_turn(&render, QUIRE__ROLE_ASSISTANT);
    flush(&render);
    return render_end(&render);
}

quire_status quire__template_close_assistant(const struct quire__template *template,
                                             struct quire__ids *ids, struct quire_error *error)
{
    struct render render = render_start(template, ids, error);
    close_turn(&render);
    return render_end(&render);
}
