/* template.h - chat templates: turns of a conversation as token ids.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A model's own template (a Jinja program in its file) is recognised, not run. The markers between
 * turns become special tokens; what people write never does: "<|im_end|>" inside a message is those
 * ten characters, so a message cannot end its own turn. Turns are appended one at a time, so that a
 * chat extends the ids that its sequence has already seen. */
#ifndef QUIRE_MODEL_TEMPLATE_H
#define QUIRE_MODEL_TEMPLATE_H

#include "model/tokenizer.h"

enum quire__template_kind {
    QUIRE__TEMPLATE_CHATML, /* <|im_start|>role\n ... <|im_end|>\n */
    QUIRE__TEMPLATE_LLAMA3, /* <|start_header_id|>role<|end_header_id|>\n\n ... <|eot_id|> */
    QUIRE__TEMPLATE_GEMMA,  /* <start_of_turn>role\n ... <end_of_turn>\n */
    QUIRE__TEMPLATE_COUNT
};

enum quire__role {
    QUIRE__ROLE_SYSTEM,
    QUIRE__ROLE_USER,
    QUIRE__ROLE_ASSISTANT,
};

/* Recognises the text of tokenizer.chat_template. UNSUPPORTED names --template and --raw. */
quire_status quire__template_detect(struct quire__text source, enum quire__template_kind *kind,
                                    struct quire_error *error);
/* "chatml", "llama3" or "gemma"; INVAL lists them. */
quire_status quire__template_by_name(const char *name, enum quire__template_kind *kind,
                                     struct quire_error *error);
const char *quire__template_name(enum quire__template_kind kind);

/* A template bound to a vocabulary. Immutable after init; the tokenizer must outlive it. */
struct quire__template {
    const struct quire__tokenizer *tokenizer;
    enum quire__template_kind kind;
    uint32_t open, header_end, close; /* markers; header_end may be QUIRE__TOKEN_NONE */
    uint32_t bos;                     /* first token of a conversation, or QUIRE__TOKEN_NONE */
    bool has_default_system;
    struct quire__bytes
        default_system; /* what the model's template says without a system message */
};

/* source: the model's template text, in which a default system message is looked for, or empty.
 * MISMATCH names the marker that the vocabulary lacks; NOMEM. On error nothing is held. */
quire_status quire__template_init(struct quire__template *template, enum quire__template_kind kind,
                                  struct quire__text source,
                                  const struct quire__tokenizer *tokenizer,
                                  struct quire_error *error);
void quire__template_deinit(struct quire__template *template);

/* Each call below appends to ids, and leaves them as they were on error: INVAL when a text is not
 * UTF-8, LIMIT, NOMEM. Llama 3 and Gemma trim white space around messages, as their templates do.
 */

/* The beginning of a conversation: BOS (once, where the template or the vocabulary has it), the
 * system message (NULL: the model's default, which may be none), the first message of the user. */
quire_status quire__template_begin(const struct quire__template *template,
                                   const struct quire__text *system, struct quire__text user,
                                   struct quire__ids *ids, struct quire_error *error);
/* One whole later turn. A system turn is UNSUPPORTED by Gemma, which has none. */
quire_status quire__template_append(const struct quire__template *template, enum quire__role role,
                                    struct quire__text text, struct quire__ids *ids,
                                    struct quire_error *error);
/* What stands before the model's answer. */
quire_status quire__template_open_assistant(const struct quire__template *template,
                                            struct quire__ids *ids, struct quire_error *error);
/* What stands after it: the end marker, which the caller has not appended when the model produced
 * it, and what follows it. */
quire_status quire__template_close_assistant(const struct quire__template *template,
                                             struct quire__ids *ids, struct quire_error *error);

#endif
