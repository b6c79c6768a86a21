/* nn.h - operations on one row of activations.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_BACKEND_CPU_LANES_NN_H
#define QUIRE_BACKEND_CPU_LANES_NN_H

FN void store_up_to(float *p, vf a, size_t left)
{
    if (left >= LANES)
        v_store(p, a);
    else
        v_store_part(p, a, left);
}

KERNEL void norm(float *y, const float *x, const float *weight, size_t n, float epsilon)
{
    vf squares = v_zero();
    for (size_t i = 0; i < n; i += LANES) {
        vf a = v_load_row(x, i, n);
        squares = v_fma(a, a, squares);
    }
    vf scale = v_set1(1.0f / sqrtf(v_sum(squares) / (float)n + epsilon));
    for (size_t i = 0; i < n; i += LANES) {
        vf a = v_load_row(x, i, n) * scale * v_load_row(weight, i, n);
        store_up_to(y + i, a, n - i);
    }
}

/* (a, b) turned by the angles whose cosine and sine are c and s. */
FN void turn(vf *a, vf *b, vf c, vf s)
{
    vf x = *a, y = *b;
    *a = v_fma(x, c, -(y * s));
    *b = v_fma(x, s, y * c);
}

FN void turn_one(float *a, float *b, const float *table)
{
    vf x = v_set1(*a), y = v_set1(*b);
    turn(&x, &y, v_set1(table[0]), v_set1(table[1]));
    *a = x[0];
    *b = y[0];
}

KERNEL void rotary_pairs(float *x, const float *table, size_t n)
{
    size_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        vf low = v_load(x + i), high = v_load(x + i + LANES);
        vf table_low = v_load(table + i), table_high = v_load(table + i + LANES);
        vf a = v_even(low, high), b = v_odd(low, high);
        turn(&a, &b, v_even(table_low, table_high), v_odd(table_low, table_high));
        v_store(x + i, v_interleave_low(a, b));
        v_store(x + i + LANES, v_interleave_high(a, b));
    }
    for (; i + 2 <= n; i += 2)
        turn_one(x + i, x + i + 1, table + i);
}

KERNEL void rotary_halves(float *x, const float *table, size_t n)
{
    size_t half = n / 2, i = 0;
    for (; i + LANES <= half; i += LANES) {
        vf table_low = v_load(table + 2 * i), table_high = v_load(table + 2 * i + LANES);
        vf a = v_load(x + i), b = v_load(x + half + i);
        turn(&a, &b, v_even(table_low, table_high), v_odd(table_low, table_high));
        v_store(x + i, a);
        v_store(x + half + i, b);
    }
    for (; i < half; i++)
        turn_one(x + i, x + half + i, table + 2 * i);
}

KERNEL void silu(float *y, const float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i += LANES) {
        vf x = v_load_row(gate, i, n);
        vf a = x / (1.0f + v_exp(-x)) * v_load_row(up, i, n);
        store_up_to(y + i, a, n - i);
    }
}

KERNEL void gelu(float *y, const float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i += LANES) {
        vf x = v_load_row(gate, i, n);
        vf u = x * v_fma(v_set1(GELU_B), x * x, v_set1(GELU_A));
        vf a = x / (1.0f + v_exp(u)) * v_load_row(up, i, n);
        store_up_to(y + i, a, n - i);
    }
}

KERNEL void add(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += LANES)
        store_up_to(y + i, v_load_row(y, i, n) + v_load_row(x, i, n), n - i);
}

KERNEL void scale(float *x, float factor, size_t n)
{
    for (size_t i = 0; i < n; i += LANES)
        store_up_to(x + i, v_load_row(x, i, n) * factor, n - i);
}

/* The largest of x without NaN; -inf where there is none. */
FN float largest_of(const float *x, size_t n)
{
    vf most = v_set1(-INFINITY), more = most;
    size_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        most = v_max(v_load(x + i), most);
        more = v_max(v_load(x + i + LANES), more);
    }
    float max = v_largest(v_max(more, most));
    for (; i < n; i++)
        max = x[i] > max ? x[i] : max;
    return max;
}

/* The first part that holds the largest is searched, element by element. */
KERNEL void argmax(uint32_t *index, const float *x, size_t n)
{
    enum { PART = 1024 };
    float max = -INFINITY;
    size_t at = 0;
    for (size_t i = 0; i < n; i += PART) {
        float part = largest_of(x + i, n - i < PART ? n - i : PART);
        at = part > max ? i : at;
        max = part > max ? part : max;
    }
    while (at < n && x[at] != max)
        at++;
    *index = at < n ? (uint32_t)at : 0;
}

#endif
