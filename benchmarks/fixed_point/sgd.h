/* SGD in the style of alphagrad.h: int8 gradients in units of 2^exponent, int16 weights, no floating point. */

#ifndef SGD_H
#define SGD_H

#include "alphagrad.h"

/* weights -= rate * gradient * 2^exponent; the rest as in alphagrad_update */
static inline void sgd_update(int16_t *weights, const int8_t *gradient, uint32_t count, int16_t exponent,
                              alphagrad_number rate, int16_t weight_bits, uint32_t *noise)
{
    uint32_t i;
    for (i = 0; i < count; i++) {
        int32_t g = gradient[i], w = weights[i];
        uint32_t size = (uint32_t)(g < 0 ? -g : g);
        uint32_t chance = noise ? alphagrad_random((*noise)++) : ALPHAGRAD_HALF;
        int32_t step = (int32_t)alphagrad_round(size * rate.mantissa, -(int32_t)exponent - rate.exponent - weight_bits,
                                                chance, 65535);
        w = g < 0 ? w + step : w - step;
        weights[i] = (int16_t)(w > 32767 ? 32767 : w < -32768 ? -32768 : w);
    }
}

/* The same with momentum 1 - 2^-decay. `velocity`: int16 a weight, in units of 2^velocity_exponent */
static inline void sgd_momentum_update(int16_t *weights, const int8_t *gradient, uint32_t count, int16_t exponent,
                                       alphagrad_number rate, int16_t weight_bits, uint32_t *noise, int16_t *velocity,
                                       int16_t velocity_exponent, int16_t decay)
{
    uint32_t i;
    for (i = 0; i < count; i++) {
        int32_t g = gradient[i], w = weights[i], v = velocity[i];
        uint32_t size = alphagrad_round((uint32_t)(g < 0 ? -g : g), (int32_t)velocity_exponent - exponent,
                                        ALPHAGRAD_HALF, 32767);
        uint32_t chance = noise ? alphagrad_random((*noise)++) : ALPHAGRAD_HALF;
        int32_t step, lost = (int32_t)alphagrad_round((uint32_t)(v < 0 ? -v : v), decay, ALPHAGRAD_HALF, 32767);
        v = (v < 0 ? v + lost : v - lost) + (g < 0 ? -(int32_t)size : (int32_t)size);
        v = v > 32767 ? 32767 : v < -32767 ? -32767 : v;
        velocity[i] = (int16_t)v;
        step = (int32_t)alphagrad_round((uint32_t)(v < 0 ? -v : v) * rate.mantissa,
                                        -(int32_t)velocity_exponent - rate.exponent - weight_bits, chance, 65535);
        w = v < 0 ? w + step : w - step;
        weights[i] = (int16_t)(w > 32767 ? 32767 : w < -32768 ? -32768 : w);
    }
}

#endif
