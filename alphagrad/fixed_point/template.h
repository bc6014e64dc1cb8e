/* The update of AlphaGrad in integers, for a processor without floating point:

       weight -= rate * tanh(alpha * gradient / |gradient|)

   Made by `python -m alphagrad.fixed_point` of alphagrad @VERSION@. C99; needs <stdint.h> and nothing else: no libm, no
   floating point, no allocation, no state of a weight. Sums and products are 32 bits wide. None overflows but those of
   alphagrad_random, which wrap as they are meant to. */

#ifndef ALPHAGRAD_H
#define ALPHAGRAD_H

#include <stdint.h>

/* mantissa * 2^exponent; made with 2^14 <= mantissa < 2^15, or 0 */
typedef struct {
    uint16_t mantissa;
    int16_t exponent;
} alphagrad_number;
@NUMBERS@
/* tanh(i / 16) in units of 2^-15 */
static const uint16_t alphagrad_tanh[@ENTRIES@] = {
@TABLE@
};

#define ALPHAGRAD_HALF UINT32_C(0x80000000)

/* value / 2^right, at most `most` < 2^16. `chance` is what is added before the division, as a share of 2^32:
   ALPHAGRAD_HALF rounds to the nearest, 32 random bits round at random. value < 2^31. */
static inline uint32_t alphagrad_round(uint32_t value, int32_t right, uint32_t chance, uint32_t most)
{
    if (right <= 0) {
        if (right < -16)
            return value ? most : 0;
        return value > most >> -right ? most : value << -right;
    }
    if (right > 30) {
        value = right < 62 ? value >> (right - 30) : 0;
        right = 30;
    }
    value = (value + (chance >> (32 - right))) >> right;
    return value > most ? most : value;
}

/* 32 random bits of a count: "lowbias32" of C. Wellons */
static inline uint32_t alphagrad_random(uint32_t x)
{
    x = (x ^ x >> 16) * UINT32_C(0x7feb352d);
    x = (x ^ x >> 15) * UINT32_C(0x846ca68b);
    return x ^ x >> 16;
}

/* The root of a sum < 2^30, rounded down */
static inline uint32_t alphagrad_root(uint32_t sum)
{
    uint32_t root = 0, bit;
    for (bit = UINT32_C(1) << 14; bit; bit >>= 1)
        if ((root | bit) * (root | bit) <= sum)
            root |= bit;
    return root;
}

/* |gradient| = result * 2^exponent, with 2^14 <= result < 2^15; 0 of a zero gradient */
static inline uint32_t alphagrad_norm(const int8_t *gradient, uint32_t count, int32_t *exponent)
{
    uint32_t i = 0, sum = 0;
    *exponent = 0;
    while (i < count) {
        uint32_t block = 0, end = count - i > 65536 ? i + 65536 : count;
        for (; i < end; i++)
            block += (uint32_t)((int32_t)gradient[i] * gradient[i]);
        sum += block >> 2 * *exponent; /* both at most 2^30 */
        while (sum >= UINT32_C(1) << 30) {
            sum >>= 2;
            ++*exponent;
        }
    }
    if (!sum)
        return 0;
    while (sum < UINT32_C(1) << 28) {
        sum <<= 2;
        --*exponent;
    }
    return alphagrad_root(sum);
}

/* One update of a tensor.

   weights      `count` numbers in units of 2^-weight_bits; one that would leave int16 stays at its end
   gradient     `count` numbers in any common unit, which need not be known
   alpha, rate  the steepness and the learning rate
   noise        a count from which random bits are drawn, which moves on; NULL rounds to the nearest

   A zero gradient changes nothing. */
static inline void alphagrad_update(int16_t *weights, const int8_t *gradient, uint32_t count, alphagrad_number alpha,
                                    alphagrad_number rate, int16_t weight_bits, uint32_t *noise)
{
    int32_t exponent;
    uint32_t i, norm = alphagrad_norm(gradient, count, &exponent);
    uint32_t steepness;
    if (!norm)
        return;
    steepness = ((uint32_t)alpha.mantissa << 15) / norm;
    for (i = 0; i < count; i++) {
        int32_t g = gradient[i], w = weights[i];
        uint32_t size = (uint32_t)(g < 0 ? -g : g);
        /* alpha * |g| / norm in units of 2^-12, then its tanh between two entries of the table */
        uint32_t x = alphagrad_round(size * steepness, 3 + exponent - alpha.exponent, ALPHAGRAD_HALF, 32767);
        uint32_t low = alphagrad_tanh[x >> 8], high = alphagrad_tanh[(x >> 8) + 1];
        uint32_t y = low + (((high - low) * (x & 255) + 128) >> 8);
        uint32_t chance = noise ? alphagrad_random((*noise)++) : ALPHAGRAD_HALF;
        int32_t step = (int32_t)alphagrad_round(y * rate.mantissa, (int32_t)15 - rate.exponent - weight_bits, chance, 65535);
        w = g < 0 ? w + step : w - step;
        weights[i] = (int16_t)(w > 32767 ? 32767 : w < -32768 ? -32768 : w);
    }
}

#endif
