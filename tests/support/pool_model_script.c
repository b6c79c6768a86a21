/* pool_model_script.c - operations as numbers and as text: drawing, printing and reading scripts.
 * SPDX-License-Identifier: Apache-2.0 */
#include "pool_model.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Which numbers an operation takes: a name, the numbers below which it is drawn, or a prompt. */
struct argument {
    const char *name;
    uint32_t limit; /* 0: a prompt */
};

enum { PROMPT = 0 };

/* `calm` is the weight of an operation where sequences grow old, `storm` where nothing lasts. */
static const struct {
    const char *name;
    uint32_t calm, storm;
    struct argument args[PM_ARGS];
} kinds[PM_KINDS] = {
    [PM_CREATE] = {"create",
                   9,
                   6,
                   {{"seq", PM_SEQS},
                    {"tenant", PM_TENANTS},
                    {"prompt", PROMPT},
                    {"len", 97},
                    {"lookup", 6}}},
    [PM_LOOKUP] = {"lookup", 5, 5, {{"tenant", PM_TENANTS}, {"prompt", PROMPT}, {"len", 98}}},
    [PM_REMATCH] = {"rematch", 5, 5, {{"seq", PM_SEQS}, {"more", 97}, {"wrong", 8}}},
    [PM_BEGIN] = {"begin",
                  14,
                  6,
                  {{"items", 1u << PM_SEQS},
                   {"sizes", 1u << 16},
                   {"untold", 1u << PM_SEQS},
                   {"turn", 3 * PM_SEQS},
                   {"fault", 24}}},
    [PM_WRITE] = {"write", 15, 6, {{"step", PM_STEPS}, {"how", 12}}},
    [PM_COMMIT] = {"commit", 13, 6, {{"step", PM_STEPS}, {"keep", 1u << 8}}},
    [PM_ABORT] = {"abort", 4, 5, {{"step", PM_STEPS}}},
    [PM_FORK] = {"fork", 5, 5, {{"seq", PM_SEQS}, {"to", PM_SEQS}, {"len", 1u << 12}}},
    [PM_TRUNCATE] = {"truncate", 5, 5, {{"seq", PM_SEQS}, {"len", 1u << 12}, {"how", 12}}},
    [PM_DESTROY] = {"destroy", 5, 5, {{"seq", PM_SEQS}, {"twice", 4}}},
    [PM_PUBLISH] = {"publish", 4, 5, {{"seq", PM_SEQS}}},
    [PM_PIN] = {"pin",
                4,
                5,
                {{"pin", PM_PINS}, {"tenant", PM_TENANTS}, {"prompt", PROMPT}, {"len", 97}}},
    [PM_UNPIN] = {"unpin", 4, 5, {{"pin", PM_PINS}}},
    [PM_DROP] = {"drop", 0, 16, {{"salt", PM_SALTS}}},
    [PM_DROP_PREFIX] = {"drop_prefix",
                        1,
                        15,
                        {{"tenant", PM_TENANTS}, {"prompt", PROMPT}, {"len", 97}}},
    [PM_RESET] = {"reset", 0, 16, {{"device", 8}}},
    [PM_READ] = {"read", 5, 5, {{"seq", PM_SEQS + 2}}},
    [PM_WRITE_ROWS] = {"write_rows", 4, 5, {{"seq", PM_SEQS}, {"first", 97}, {"count", 97}}},
    [PM_INSPECT] = {"inspect", 4, 5, {{"audit", 64}}},
    [PM_MISUSE] = {"misuse", 4, 5, {{"arg", 1u << 8}, {"what", 6}}},
};

const char *pm_kind_name(enum pm_kind kind)
{
    return kinds[kind].name;
}

/* ---- drawing ---- */

static uint32_t draw_kind(struct qt_random *random, bool storm)
{
    uint32_t total = 0, pick;
    for (size_t i = 0; i < PM_KINDS; i++)
        total += storm ? kinds[i].storm : kinds[i].calm;
    pick = qt_below(random, total);
    for (uint32_t i = 0;; i++) {
        uint32_t weight = storm ? kinds[i].storm : kinds[i].calm;
        if (pick < weight)
            return i;
        pick -= weight;
    }
}

/* Most prompts are a few that the script uses again and again, most often for one tenant. */
struct habits {
    uint32_t prompts[4], tenants;
};

static uint32_t draw_arg(struct qt_random *random, const struct argument *argument,
                         const struct habits *habits, bool storm)
{
    if (argument->limit == PROMPT)
        return qt_chance(random, 90) ? habits->prompts[qt_below(random, QT_LEN(habits->prompts))]
                                     : pm_prompt_draw(random);
    if (strcmp(argument->name, "tenant") == 0 && !storm)
        return qt_below(random, habits->tenants);
    if (strcmp(argument->name, "untold") == 0 && qt_chance(random, 80))
        return 0;
    return qt_below(random, argument->limit);
}

void pm_ops_draw(struct qt_random *random, struct pm_op *ops, uint32_t num_ops)
{
    enum { STORM = 220, CALM = 520 }; /* operations of a phase, at most */
    struct habits habits = {.tenants =
                                qt_chance(random, 60) ? 1 : 1 + qt_below(random, PM_TENANTS)};
    uint32_t phase = 0;
    bool storm = qt_chance(random, 50);
    for (size_t i = 0; i < QT_LEN(habits.prompts); i++)
        habits.prompts[i] = pm_prompt_draw(random);
    for (uint32_t i = 0; i < num_ops; i++, phase--) {
        if (phase == 0) {
            storm = !storm;
            phase = 1 + qt_below(random, storm ? STORM : CALM);
        }
        struct pm_op *op = &ops[i];
        *op = (struct pm_op){.kind = draw_kind(random, storm)};
        for (size_t a = 0; a < PM_ARGS && kinds[op->kind].args[a].name != NULL; a++)
            op->args[a] = draw_arg(random, &kinds[op->kind].args[a], &habits, storm);
    }
}

/* ---- text ---- */

static const struct {
    const char *name;
    size_t offset;
} shape_fields[] = {
    {"backend", offsetof(struct pm_shape, backend)},
    {"contiguous", offsetof(struct pm_shape, contiguous)},
    {"geometry", offsetof(struct pm_shape, geometry)},
    {"block_size", offsetof(struct pm_shape, block_size)},
    {"num_blocks", offsetof(struct pm_shape, num_blocks)},
    {"seq_len", offsetof(struct pm_shape, seq_len)},
    {"step_tokens", offsetof(struct pm_shape, step_tokens)},
    {"rollback", offsetof(struct pm_shape, rollback)},
    {"pinned_blocks", offsetof(struct pm_shape, pinned_blocks)},
    {"merge_equal", offsetof(struct pm_shape, merge_equal)},
    {"eviction", offsetof(struct pm_shape, eviction)},
    {"alphabet", offsetof(struct pm_shape, alphabet)},
    {"vocab", offsetof(struct pm_shape, vocab)},
    {"events", offsetof(struct pm_shape, events)},
    {"memory", offsetof(struct pm_shape, memory)},
    {"f16", offsetof(struct pm_shape, f16)},
};

void pm_script_print(const struct pm_script *script, FILE *out)
{
    (void)fprintf(out, "# %u operations on a pool", script->num_ops);
    if (script->seed != 0)
        (void)fprintf(out, ", of seed %" PRIu64, script->seed);
    (void)fprintf(out, "; geometry: %s\nshape", pm_geometries[script->shape.geometry].name);
    for (size_t i = 0; i < QT_LEN(shape_fields); i++) {
        uint32_t value;
        memcpy(&value, (const char *)&script->shape + shape_fields[i].offset, sizeof value);
        (void)fprintf(out, " %s=%u", shape_fields[i].name, value);
    }
    (void)fputc('\n', out);
    for (uint32_t i = 0; i < script->num_ops; i++) {
        const struct pm_op *op = &script->ops[i];
        (void)fputs(kinds[op->kind].name, out);
        for (size_t a = 0; a < PM_ARGS && kinds[op->kind].args[a].name != NULL; a++)
            (void)fprintf(out, " %s=%u", kinds[op->kind].args[a].name, op->args[a]);
        (void)fputc('\n', out);
    }
}

/* The number of ` name=number` in a line; false where it is not there. */
static bool find_number(const char *line, const char *name, uint32_t *value)
{
    size_t length = strlen(name);
    for (const char *at = strchr(line, ' '); at != NULL; at = strchr(at + 1, ' ')) {
        if (strncmp(at + 1, name, length) == 0 && at[1 + length] == '=') {
            char *end;
            unsigned long number = strtoul(at + 2 + length, &end, 10);
            *value = (uint32_t)number;
            return end != at + 2 + length && number <= UINT32_MAX;
        }
    }
    return false;
}

static bool read_shape(const char *line, struct pm_shape *shape)
{
    for (size_t i = 0; i < QT_LEN(shape_fields); i++) {
        uint32_t value = 0;
        if (!find_number(line, shape_fields[i].name, &value))
            return false;
        memcpy((char *)shape + shape_fields[i].offset, &value, sizeof value);
    }
    return shape->backend <= PM_OPAQUE && shape->geometry < pm_num_geometries() &&
           shape->num_blocks <= PM_ARENA_MAX && shape->seq_len <= PM_LEN_MAX &&
           shape->step_tokens <= PM_ROWS_MAX && shape->alphabet >= 1 &&
           shape->alphabet <= PM_ALPHABET_MAX && shape->block_size > 0;
}

static bool read_op(const char *line, struct pm_op *op)
{
    size_t length = strcspn(line, " ");
    *op = (struct pm_op){.kind = 0};
    while (op->kind < PM_KINDS && (strlen(kinds[op->kind].name) != length ||
                                   strncmp(kinds[op->kind].name, line, length) != 0))
        op->kind++;
    if (op->kind == PM_KINDS)
        return false;
    for (size_t a = 0; a < PM_ARGS && kinds[op->kind].args[a].name != NULL; a++) {
        const struct argument *argument = &kinds[op->kind].args[a];
        if (!find_number(line, argument->name, &op->args[a]) ||
            (argument->limit != PROMPT && op->args[a] >= argument->limit))
            return false;
    }
    return true;
}

bool pm_script_read(FILE *in, const char *name, struct pm_script *script)
{
    char line[1024];
    uint32_t size = 0, number = 0;
    bool shaped = false, good = true;
    *script = (struct pm_script){.num_ops = 0};
    while (good && fgets(line, sizeof line, in) != NULL) {
        number++;
        line[strcspn(line, "\n")] = '\0';
        if (line[0] == '#' || line[0] == '\0')
            continue;
        if (script->num_ops == size) {
            size_t bytes = size * sizeof *script->ops;
            script->ops = qt_grow(script->ops, bytes, 2 * bytes + 64 * sizeof *script->ops);
            size = 2 * size + 64;
        }
        if (!shaped)
            good = shaped = strncmp(line, "shape ", 6) == 0 && read_shape(line, &script->shape);
        else
            good = read_op(line, &script->ops[script->num_ops++]);
    }
    if (!good || !shaped) {
        if (name != NULL)
            (void)fprintf(stderr, "%s:%u: this is no line of a script\n", name, number);
        qt_free(script->ops);
        script->ops = NULL;
    }
    return good && shaped;
}
