/* opaque_nn.c - the nn group of the opaque test backend: each call is queued.
 * SPDX-License-Identifier: Apache-2.0 */
#include "opaque_internal.h"

static quire_status weight_create(struct quire_backend *backend,
                                  const struct quire_weight_desc *desc, struct quire_weight **out)
{
    struct quire_backend *inner = ((struct opaque *)backend)->inner;
    return inner->nn->weight_create(inner, desc, out);
}

static void weight_destroy(struct quire_backend *backend, struct quire_weight *weight)
{
    struct quire_backend *inner = ((struct opaque *)backend)->inner;
    quire_fence fence;
    if (backend->memory->fence_record(backend, &fence) == QUIRE_OK)
        (void)backend->memory->fence_wait(backend, fence);
    inner->nn->weight_destroy(inner, weight);
}

static quire_status linear(struct quire_backend *backend, struct quire_weight *weight,
                           const struct quire_view *x, const struct quire_view *y)
{
    struct opaque_command command = {.op = OPAQUE_LINEAR, .weight = weight};
    const struct quire_view *views[] = {x, y};
    return opaque_submit_nn(backend, &command, views, 2);
}

static quire_status norm(struct quire_backend *backend, const struct quire_view *weight,
                         float epsilon, const struct quire_view *x, const struct quire_view *y)
{
    struct opaque_command command = {.op = OPAQUE_NORM, .epsilon = epsilon};
    const struct quire_view *views[] = {weight, x, y};
    return opaque_submit_nn(backend, &command, views, 3);
}

static quire_status rotary(struct quire_backend *backend, enum quire_rotary_style style,
                           const struct quire_view *table, const struct quire_view *x)
{
    struct opaque_command command = {.op = OPAQUE_ROTARY, .rotary = style};
    const struct quire_view *views[] = {table, x};
    return opaque_submit_nn(backend, &command, views, 2);
}

static quire_status activate(struct quire_backend *backend, enum quire_activation activation,
                             const struct quire_view *gate, const struct quire_view *up,
                             const struct quire_view *y)
{
    struct opaque_command command = {.op = OPAQUE_ACTIVATE, .activation = activation};
    const struct quire_view *views[] = {gate, up, y};
    return opaque_submit_nn(backend, &command, views, 3);
}

static quire_status add(struct quire_backend *backend, const struct quire_view *x,
                        const struct quire_view *y)
{
    struct opaque_command command = {.op = OPAQUE_ADD};
    const struct quire_view *views[] = {x, y};
    return opaque_submit_nn(backend, &command, views, 2);
}

static quire_status scale(struct quire_backend *backend, float factor, const struct quire_view *x)
{
    struct opaque_command command = {.op = OPAQUE_SCALE, .factor = factor};
    const struct quire_view *views[] = {x};
    return opaque_submit_nn(backend, &command, views, 1);
}

static quire_status embed(struct quire_backend *backend, struct quire_weight *weight,
                          const struct quire_view *ids, const struct quire_view *y)
{
    struct opaque_command command = {.op = OPAQUE_EMBED, .weight = weight};
    const struct quire_view *views[] = {ids, y};
    return opaque_submit_nn(backend, &command, views, 2);
}

static quire_status argmax(struct quire_backend *backend, const struct quire_view *x,
                           const struct quire_view *ids)
{
    struct opaque_command command = {.op = OPAQUE_ARGMAX};
    const struct quire_view *views[] = {x, ids};
    return opaque_submit_nn(backend, &command, views, 2);
}

const struct quire_nn_ops opaque_nn_ops = {
    weight_create, weight_destroy, linear, norm, rotary, activate, add, scale, embed, argmax,
};
