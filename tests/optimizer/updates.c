/* Reads updates from standard input, makes them by the header, and writes the weights and the noise that follow.
   Integers are the machine's own. */
#include "alphagrad.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct {
    uint32_t count;
    alphagrad_number alpha, rate;
    int16_t weight_bits;
    uint16_t noisy;
    uint32_t noise;
} asked;

static void *room(size_t bytes)
{
    void *found = malloc(bytes ? bytes : 1);
    if (!found)
        exit(1);
    return found;
}

int main(void)
{
    asked a;
    while (fread(&a, sizeof a, 1, stdin) == 1) {
        int16_t *weights = room(a.count * sizeof *weights);
        int8_t *gradient = room(a.count);
        if (fread(weights, sizeof *weights, a.count, stdin) != a.count || fread(gradient, 1, a.count, stdin) != a.count)
            return 1;
        alphagrad_update(weights, gradient, a.count, a.alpha, a.rate, a.weight_bits, a.noisy ? &a.noise : NULL);
        fwrite(weights, sizeof *weights, a.count, stdout);
        fwrite(&a.noise, sizeof a.noise, 1, stdout);
        free(weights);
        free(gradient);
    }
    return 0;
}
