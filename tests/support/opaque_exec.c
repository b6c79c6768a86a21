/* opaque_exec.c - the late half of the opaque test backend: runs commands and checks the rules.
 * SPDX-License-Identifier: Apache-2.0 */
#include "opaque_internal.h"

#include <string.h>
#include <sys/mman.h>

void opaque_open_buffers(struct opaque *opaque, bool open)
{
    int protection = open ? PROT_READ | PROT_WRITE : PROT_NONE;
    for (uint32_t i = 0; i < opaque->num_buffers; i++) {
        struct opaque_buffer *buffer = &opaque->buffers[i];
        if (buffer->live && !buffer->wrapped)
            (void)mprotect(buffer->data, buffer->mapped_bytes, protection);
    }
}

static bool all_at_least(const struct opaque_buffer *buffer, uint64_t offset, uint64_t bytes,
                         uint8_t state)
{
    if (offset > buffer->bytes || bytes > buffer->bytes - offset)
        return false;
    if (bytes == 0 || (!buffer->reserved && state <= OPAQUE_COMMITTED))
        return true;
    const uint8_t *shadow = buffer->shadow + offset;
    uint8_t lowest = shadow[0];
    for (uint64_t i = 1; i < bytes; i++)
        lowest = shadow[i] < lowest ? shadow[i] : lowest;
    return lowest >= state;
}

static bool usable(struct opaque *opaque, const struct opaque_buffer *buffer, uint64_t offset,
                   uint64_t bytes, const char *what)
{
    if (all_at_least(buffer, offset, bytes, OPAQUE_COMMITTED))
        return true;
    opaque_violate(opaque, "%s touches bytes %llu + %llu that are not committed", what,
                   (unsigned long long)offset, (unsigned long long)bytes);
    return false;
}

static void mark(struct opaque_buffer *buffer, uint64_t offset, uint64_t bytes, uint8_t state)
{
    memset(buffer->shadow + offset, state, bytes);
}

static void run_commit(struct opaque_command *command)
{
    struct opaque_buffer *buffer = command->to;
    for (uint64_t i = command->to_offset; i < command->to_offset + command->bytes; i++) {
        if (buffer->shadow[i] == OPAQUE_ABSENT) {
            buffer->shadow[i] = OPAQUE_COMMITTED;
            buffer->data[i] = OPAQUE_FRESH;
        }
    }
}

static void run_copy(struct opaque *opaque, struct opaque_command *command)
{
    struct opaque_buffer *to = command->to, *from = command->from;
    if (!usable(opaque, to, command->to_offset, command->bytes, "copy") ||
        !usable(opaque, from, command->from_offset, command->bytes, "copy"))
        return;
    memcpy(to->data + command->to_offset, from->data + command->from_offset, command->bytes);
    memcpy(to->shadow + command->to_offset, from->shadow + command->from_offset, command->bytes);
    for (uint64_t i = 0; to->reserved && i < command->bytes; i++) {
        if (to->shadow[command->to_offset + i] == OPAQUE_ABSENT)
            to->shadow[command->to_offset + i] = OPAQUE_COMMITTED;
    }
}

static void run_memory(struct opaque *opaque, struct opaque_command *command)
{
    struct opaque_buffer *to = command->to;
    uint64_t offset = command->to_offset, bytes = command->bytes;
    switch (command->op) {
    case OPAQUE_COMMIT:
        run_commit(command);
        break;
    case OPAQUE_DECOMMIT:
        memset(to->data + offset, OPAQUE_POISON, bytes);
        mark(to, offset, bytes, OPAQUE_ABSENT);
        break;
    case OPAQUE_UPLOAD:
        if (usable(opaque, to, offset, bytes, "upload")) {
            memcpy(to->data + offset, command->payload, bytes);
            mark(to, offset, bytes, OPAQUE_WRITTEN);
        }
        break;
    case OPAQUE_FILL:
        if (usable(opaque, to, offset, bytes, "fill")) {
            memset(to->data + offset, command->value, bytes);
            mark(to, offset, bytes, OPAQUE_WRITTEN);
        }
        break;
    case OPAQUE_DOWNLOAD:
        if (usable(opaque, command->from, command->from_offset, bytes, "download"))
            memcpy(command->host, command->from->data + command->from_offset, bytes);
        break;
    default:
        run_copy(opaque, command);
        break;
    }
}

static uint32_t table_entry(const struct opaque_plan *plan, uint32_t group, uint32_t slot,
                            uint32_t block)
{
    const struct quire_kv_spec *spec = &plan->spec;
    uint64_t index = ((uint64_t)group * spec->max_seqs + slot) * spec->max_blocks + block;
    uint32_t entry;
    memcpy(&entry, plan->tables->data + index * sizeof entry, sizeof entry);
    return entry;
}

/* Whether the new tokens of a part see something of a block in this group, or write it. */
static bool is_seen(const struct opaque_plan *plan, uint32_t group,
                    const struct quire_step_part *part, uint32_t block)
{
    const struct quire_kv_spec *spec = &plan->spec;
    for (uint32_t i = 0; i < spec->num_layers; i++) {
        const struct quire_kv_layer *layer = &spec->layers[i];
        uint64_t first = (uint64_t)block * spec->positions_per_page;
        uint64_t end = first + spec->positions_per_page;
        if (layer->group == group && (layer->window == 0 || first < layer->sink_positions ||
                                      end + layer->window > (uint64_t)part->len + 1))
            return true;
    }
    return false;
}

/* The device's table and length of one sequence must already be those of the step: every slot that
 * its tokens see names a page, every slot behind its end is QUIRE_BLOCK_NONE. */
static bool check_part(struct opaque *opaque, const struct opaque_plan *plan,
                       const struct quire_step_part *part)
{
    const struct quire_kv_spec *spec = &plan->spec;
    uint32_t end = part->len + part->n_new, len;
    if (part->slot >= spec->max_seqs || part->row + part->n_new > spec->max_step_tokens) {
        opaque_violate(opaque, "a step part lies outside of the plan");
        return false;
    }
    memcpy(&len, plan->tables->data + spec->lens_offset + part->slot * sizeof len, sizeof len);
    if (len != end)
        opaque_violate(opaque, "lens[%u] is %u in a step that ends at %u", part->slot, len, end);
    uint32_t used = (end + spec->positions_per_page - 1) / spec->positions_per_page;
    if (used > spec->max_blocks) {
        opaque_violate(opaque, "slot %u needs %u blocks of %u", part->slot, used, spec->max_blocks);
        return false;
    }
    for (uint32_t group = 0; group < spec->num_groups; group++) {
        for (uint32_t block = 0; block < spec->max_blocks; block++) {
            uint32_t entry = table_entry(plan, group, part->slot, block);
            bool named = entry < spec->num_pages;
            if (!named && entry == QUIRE_BLOCK_NONE && !is_seen(plan, group, part, block))
                continue;
            if (block < used ? !named : entry != QUIRE_BLOCK_NONE) {
                opaque_violate(opaque, "table of slot %u has %u at %u, %u used", part->slot, entry,
                               block, used);
                return false;
            }
        }
    }
    return true;
}

static quire_status run_plan_build(struct opaque *opaque, struct opaque_command *command)
{
    struct opaque_plan *plan = command->plan;
    command->desc.parts = command->payload;
    for (uint32_t i = 0; i < command->desc.num_parts; i++) {
        if (!check_part(opaque, plan, &command->desc.parts[i]))
            return QUIRE_E_DEVICE;
    }
    plan->num_parts = command->desc.num_parts;
    memcpy(plan->parts, command->payload, plan->num_parts * sizeof *plan->parts);
    return opaque->inner->kv->plan_build(opaque->inner, plan->inner, &command->desc);
}

/* Where the data (part 0) or scales (part 1) of a plane lie, by docs/formats/kv.md. */
struct piece {
    struct opaque_buffer *buffer;
    uint64_t page_bytes; /* between pages */
    uint64_t offset;     /* of the first row of head 0 in a page */
    uint64_t head_bytes; /* between heads */
    uint64_t row_bytes;
};

static struct piece piece_of(const struct opaque_plan *plan, const struct quire_kv_layer *layer,
                             bool is_k, uint32_t part)
{
    uint32_t dtype = is_k ? layer->dtype_k : layer->dtype_v;
    uint32_t dim = is_k ? layer->head_dim : layer->head_dim_v;
    uint64_t positions = plan->spec.positions_per_page, data = quire_kv_data_bytes(dtype, dim);
    uint64_t scales = quire_kv_scale_bytes(dtype, dim);
    uint64_t own = is_k ? layer->k_page_bytes : layer->v_page_bytes;
    bool in_arena = (is_k ? layer->k_buffer : layer->v_buffer) == NULL;
    return (struct piece){
        .buffer = plan->planes[layer - plan->spec.layers][is_k ? 0 : 1],
        .page_bytes = in_arena ? plan->spec.page_bytes : own,
        .offset = (is_k ? layer->k_offset : layer->v_offset) + (part == 0 ? 0 : positions * data),
        .head_bytes = positions * (data + scales),
        .row_bytes = part == 0 ? data : scales,
    };
}

static void copy_piece(const struct quire_block_copy *copy, const struct piece *piece,
                       uint32_t heads)
{
    uint8_t *shadow = piece->buffer->shadow;
    for (uint32_t head = 0; head < heads; head++) {
        uint64_t at = piece->offset + head * piece->head_bytes;
        memcpy(shadow + copy->to * piece->page_bytes + at,
               shadow + copy->from * piece->page_bytes + at, copy->rows * piece->row_bytes);
    }
}

/* Copies must be of rows that were written: what the shadow knows is copied along. */
static quire_status run_copies(struct opaque *opaque, struct opaque_command *command)
{
    const struct opaque_plan *plan = command->plan;
    const struct quire_block_copy *copies = command->payload;
    for (uint32_t i = 0; i < command->num_copies; i++) {
        for (uint32_t l = 0; l < plan->spec.num_layers; l++) {
            const struct quire_kv_layer *layer = &plan->spec.layers[l];
            if (layer->group != copies[i].group)
                continue;
            for (uint32_t part = 0; part < 4; part++) {
                struct piece piece = piece_of(plan, layer, part < 2, part % 2);
                copy_piece(&copies[i], &piece, layer->num_kv_heads);
            }
        }
    }
    return opaque->inner->kv->copy(opaque->inner, plan->inner, copies, command->num_copies);
}

struct row_check {
    const struct quire_kv_layer *layer;
    uint32_t slot, position;
    uint8_t least; /* the state that its bytes must have */
    bool mark;     /* marks them as written */
};

static bool check_row(struct opaque *opaque, const struct opaque_plan *plan,
                      const struct row_check *row)
{
    const struct quire_kv_layer *layer = row->layer;
    uint32_t page_positions = plan->spec.positions_per_page;
    uint64_t page = table_entry(plan, layer->group, row->slot, row->position / page_positions);
    for (uint32_t part = 0; part < 4; part++) {
        struct piece piece = piece_of(plan, layer, part < 2, part % 2);
        uint64_t row_bytes = piece.row_bytes;
        uint64_t base =
            page * piece.page_bytes + piece.offset + row->position % page_positions * row_bytes;
        for (uint32_t head = 0; head < layer->num_kv_heads; head++) {
            uint64_t offset = base + head * piece.head_bytes;
            if (!all_at_least(piece.buffer, offset, row_bytes, row->least)) {
                opaque_violate(opaque, "position %u of slot %u is read or written at %llu: %s",
                               row->position, row->slot, (unsigned long long)offset,
                               row->least == OPAQUE_WRITTEN ? "never written" : "not committed");
                return false;
            }
            if (row->mark)
                mark(piece.buffer, offset, row_bytes, OPAQUE_WRITTEN);
        }
    }
    return true;
}

/* Every row that the kernel is about to read or write: all visible ones, or the new ones. */
static bool check_rows(struct opaque *opaque, const struct opaque_command *command, bool attend)
{
    const struct opaque_plan *plan = command->plan;
    const struct quire_kv_layer *layer = &plan->spec.layers[command->layer];
    for (uint32_t i = 0; i < plan->num_parts; i++) {
        const struct quire_step_part *part = &plan->parts[i];
        uint32_t first = attend ? 0 : part->len;
        for (uint32_t t = first; t < part->len + part->n_new; t++) {
            bool hidden = layer->window != 0 && t >= layer->sink_positions &&
                          (uint64_t)t + layer->window <= part->len;
            struct row_check row = {layer, part->slot, t, OPAQUE_COMMITTED, !attend};
            row.least = attend ? OPAQUE_WRITTEN : OPAQUE_COMMITTED;
            if (!(attend && hidden) && !check_row(opaque, plan, &row))
                return false;
        }
    }
    return true;
}

static quire_status run_kv(struct opaque *opaque, struct opaque_command *command)
{
    struct quire_backend *inner = opaque->inner;
    struct quire_view *views = command->views;
    if (command->op == OPAQUE_PLAN_BUILD)
        return run_plan_build(opaque, command);
    if (command->op == OPAQUE_COPY_ROWS)
        return run_copies(opaque, command);
    if (!check_rows(opaque, command, command->op == OPAQUE_ATTEND))
        return QUIRE_E_DEVICE;
    if (command->op == OPAQUE_WRITE)
        return inner->kv->write(inner, command->plan->inner, command->layer, &views[0], &views[1]);
    command->params.alibi_slopes = command->alibi;
    command->params.sink_logits = command->sinks;
    command->params.lse = views[2];
    return inner->kv->attend(inner, command->plan->inner, command->layer, &views[0], &views[1],
                             &command->params);
}

static quire_status run_nn(struct opaque *opaque, struct opaque_command *command)
{
    struct quire_backend *inner = opaque->inner;
    const struct quire_nn_ops *nn = inner->nn;
    struct quire_view *views = command->views;
    switch (command->op) {
    case OPAQUE_LINEAR:
        return nn->linear(inner, command->weight, &views[0], &views[1]);
    case OPAQUE_NORM:
        return nn->norm(inner, &views[0], command->epsilon, &views[1], &views[2]);
    case OPAQUE_ROTARY:
        return nn->rotary(inner, command->rotary, &views[0], &views[1]);
    case OPAQUE_ACTIVATE:
        return nn->activate(inner, command->activation, &views[0], &views[1], &views[2]);
    case OPAQUE_ADD:
        return nn->add(inner, &views[0], &views[1]);
    case OPAQUE_SCALE:
        return nn->scale(inner, command->factor, &views[0]);
    case OPAQUE_EMBED:
        return nn->embed(inner, command->weight, &views[0], &views[1]);
    default:
        return nn->argmax(inner, &views[0], &views[1]);
    }
}

quire_status opaque_run_one(struct opaque *opaque, struct opaque_command *command)
{
    struct quire_backend *inner = opaque->inner;
    quire_status status = QUIRE_OK;
    quire_fence fence = 0;
    if (command->op == OPAQUE_NOP)
        return QUIRE_OK;
    if (command->op <= OPAQUE_FILL)
        run_memory(opaque, command);
    else if (command->op <= OPAQUE_ATTEND)
        status = run_kv(opaque, command);
    else
        status = run_nn(opaque, command);
    if (command->op > OPAQUE_FILL && status == QUIRE_OK)
        status = inner->memory->fence_record(inner, &fence);
    if (fence != 0)
        status = inner->memory->fence_wait(inner, fence);
    if (status != QUIRE_OK)
        opaque_violate(opaque, "the inner backend answers %s late", quire_status_name(status));
    return status;
}
