/* Adam in the style of alphagrad.h: int8 gradients in units of 2^exponent, int16 weights, no floating point.

   beta1 = 1 - 2^-3 and beta2 = 1 - 2^-10, so that a shift does for a product. The moments have a fixed unit, since they
   outlive the unit of a gradient: a gradient counts in units of 2^moment_exponent, at most 2047 of them; its mean and
   that of its square have 8 bits more. */

#ifndef ADAM_H
#define ADAM_H

#include "alphagrad.h"

typedef struct {
    int32_t mean;
    uint32_t square;
} adam_moments;

/* One update; `rate` holds the correction of the first steps: rate * sqrt(1 - beta2^t) / (1 - beta1^t).
   The rest is as in alphagrad_update. */
static inline void adam_update(int16_t *weights, const int8_t *gradient, uint32_t count, int16_t exponent,
                               alphagrad_number rate, int16_t weight_bits, uint32_t *noise, adam_moments *moments,
                               int16_t moment_exponent)
{
    uint32_t i;
    for (i = 0; i < count; i++) {
        int32_t g = gradient[i], w = weights[i], m = moments[i].mean;
        uint32_t v = moments[i].square;
        int32_t shift = 4, step;
        uint32_t size = alphagrad_round((uint32_t)(g < 0 ? -g : g), (int32_t)moment_exponent - exponent,
                                        ALPHAGRAD_HALF, 2047);
        uint32_t chance = noise ? alphagrad_random((*noise)++) : ALPHAGRAD_HALF;
        uint32_t lost = alphagrad_round((uint32_t)(m < 0 ? -m : m), 3, ALPHAGRAD_HALF, 65535), ratio;
        m = m < 0 ? m + (int32_t)lost : m - (int32_t)lost;
        m += g < 0 ? -(int32_t)(size << 5) : (int32_t)(size << 5);
        v = v - ((v + 512) >> 10) + ((size * size + 2) >> 2);
        moments[i].mean = m;
        moments[i].square = v;
        if (!m)
            continue;
        if (!v)
            v = 1;
        /* |m| / sqrt(v), in units of 2^-12: v is brought to 2^28 <= v < 2^30 first */
        while (v >= UINT32_C(1) << 30) {
            v >>= 2;
            shift--;
        }
        while (v < UINT32_C(1) << 28) {
            v <<= 2;
            shift++;
        }
        ratio = ((uint32_t)(m < 0 ? -m : m) << 12) / alphagrad_root(v);
        ratio = alphagrad_round(ratio, 8 - shift, ALPHAGRAD_HALF, 65535);
        step = (int32_t)alphagrad_round((ratio >> 1) * rate.mantissa, (int32_t)11 - rate.exponent - weight_bits, chance,
                                        65535);
        w = m < 0 ? w + step : w - step;
        weights[i] = (int16_t)(w > 32767 ? 32767 : w < -32768 ? -32768 : w);
    }
}

#endif
