/* Fuzz target: every decoder on hostile bytes, and every encoder's bytes decoded again.
 *
 * With libFuzzer: clang -g -O1 -fsanitize=fuzzer,address,undefined fuzz.c coder.c
 * Without: cc -g -O1 -DPENJING_FUZZ_DRIVER -fsanitize=address,undefined fuzz.c coder.c; the program then
 * draws its own inputs, for the seconds given as -max_total_time=N, or replays the files named. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coder.h"

static void *tables;

static void *need(int64_t size) {
    void *memory = malloc(size > 0 ? (size_t)size : 1); /* exact sizes, so that overruns are seen */
    if (!memory) abort();
    return memory;
}

static void must(int good, const char *what) {
    if (good) return;
    fprintf(stderr, "broken promise: %s\n", what);
    abort();
}

/* Take the shape, width and coder from the first bytes, the payload from the others. */
typedef struct {
    uint64_t shape[4], count;
    int width;
    uint32_t choice[9];
} Plan;

static Plan plan_of(const uint8_t *in) {
    static const int WIDTHS[3] = {1, 2, 4};
    Plan p;
    p.count = 1;
    for (int i = 0; i < 4; i++) p.count *= p.shape[i] = 1 + (in[i] & 15) % (i < 2 ? 16 : 6);
    p.width = WIDTHS[in[4] % 3];
    for (int i = 0; i < 9; i++) p.choice[i] = 0;
    p.choice[0] = in[5] & 3;
    p.choice[1] = (in[5] >> 2) & 3;
    p.choice[2] = (in[5] >> 4) & 1;
    p.choice[3] = (in[5] >> 5) & 1;
    p.choice[4] = (in[5] >> 6) & 1;
    p.choice[5] = in[6] % 31;
    if (in[7] & 1) p.choice[6] = 1 + (in[7] >> 1) % 4, p.choice[7] = 1 + (in[7] >> 3) % 4;
    p.choice[8] = in[7] >> 7;
    return p;
}

static void attack(const Plan *p, const uint8_t *in, size_t size) {
    void *data = need((int64_t)p->count * p->width);
    uint8_t *copy = need((int64_t)size);
    if (size) memcpy(copy, in, size);
    int64_t need_bytes = penjing_context_decode_work(copy, size, p->shape);
    if (need_bytes >= 0) {
        void *work = need(need_bytes);
        penjing_context_decode(tables, copy, size, data, p->width, p->shape, work, (uint64_t)need_bytes);
        free(work);
    }
    for (int sign = -1; sign <= 1; sign += 2) {
        void *work = need(penjing_rans_work());
        penjing_rans_decode(tables, copy, size, data, sign * p->width, p->count, work,
                            (uint64_t)penjing_rans_work());
        free(work);
        work = need(penjing_huffman_work());
        penjing_huffman_decode(tables, copy, size, data, sign * p->width, p->count, work,
                               (uint64_t)penjing_huffman_work());
        free(work);
    }
    free(copy);
    free(data);
}

static void round_trip(const Plan *p, const uint8_t *in, size_t size) {
    size_t bytes = (size_t)p->count * (size_t)p->width, capacity = 16 * (size_t)p->count + 256;
    uint8_t *data = need((int64_t)bytes), *back = need((int64_t)bytes), *out = need((int64_t)capacity);
    for (size_t i = 0; i < bytes; i++) data[i] = size ? in[i % size] : 0;
    for (size_t i = 0; size && in[0] & 1 && i < p->count; i++) { /* small integers, as weights are */
        int8_t small = (int8_t)((int8_t)in[i % size] >> (4 + (in[0] >> 1 & 3)));
        for (int k = 0; k < p->width; k++) data[i * (size_t)p->width + (size_t)k] = (uint8_t)(small < 0 ? 255 : 0);
        uint16_t probe = 1;
        size_t low = *(uint8_t *)&probe ? 0 : (size_t)p->width - 1;
        data[i * (size_t)p->width + low] = (uint8_t)small;
    }
    int64_t work_size = penjing_context_work(p->shape, p->choice);
    if (work_size >= 0) {
        void *work = need(work_size);
        int64_t coded = penjing_context_encode(tables, data, p->width, p->shape, p->choice, work,
                                               (uint64_t)work_size, out, capacity);
        if (coded >= 0) {
            must(penjing_context_decode_work(out, (uint64_t)coded, p->shape) == work_size, "work sizes agree");
            int64_t result = penjing_context_decode(tables, out, (uint64_t)coded, back, p->width, p->shape, work,
                                                    (uint64_t)work_size);
            must(result == 0 && memcmp(data, back, bytes) == 0, "context coding is lossless");
        }
        free(work);
    }
    free(data);
    free(back);
    free(out);
}

/* Well-formed static codes of small integers; then the same bytes with some of them changed. */
static void static_codes(const Plan *p, const uint8_t *in, size_t size) {
    size_t count = (size_t)p->count, capacity = 4 * count + 4096;
    int16_t *data = need((int64_t)(2 * count)), *back = need((int64_t)(2 * count));
    uint8_t *out = need((int64_t)capacity);
    uint16_t numbers[32 + 4];
    int wide = in[0] & 1; /* 16 direct tokens, or 36 with raw bits for the upper ones */
    uint32_t used = wide ? 36 : 16;
    for (size_t i = 0; i < count; i++) {
        int16_t symbol = (int16_t)((int16_t)(in[i % size] << 8) >> (wide ? 7 : 12));
        data[i] = (int16_t)(symbol < 0 && !wide ? ~symbol : symbol);
        if (!wide) data[i] = (int16_t)(data[i] - 4);
    }
    for (int coder = 0; coder < 2; coder++) {
        int64_t settings[6] = {0, 1, 4, 11, in[size - 1] & 1 ? 4 : 1, used}, coded, result;
        int64_t work_size = coder ? penjing_huffman_work() : penjing_rans_work();
        void *work = need(work_size);
        for (uint32_t t = 0; t < used; t++) numbers[t] = (uint16_t)(coder ? 4 : 128);
        if (wide) { /* a complete code: 28 of length 5 and 4 * 2 of length 6; frequencies add up to 2048 */
            for (uint32_t t = 0; t < used; t++) numbers[t] = (uint16_t)(coder ? t < 28 ? 5 : 6 : t < 28 ? 64 : 32);
        }
        if (coder) {
            settings[3] = used;
            coded = penjing_huffman_encode(tables, data, 2, count, settings, numbers, work, (uint64_t)work_size, out,
                                           capacity);
        } else {
            coded = penjing_rans_encode(tables, data, 2, count, settings, numbers, work, (uint64_t)work_size, out,
                                        capacity);
        }
        for (int round = 0; coded >= 0 && round < 2; round++) {
            uint8_t *copy = need(coded);
            memcpy(copy, out, (size_t)coded);
            for (size_t k = 0; round && k < 2; k++) {
                copy[(in[k] * 257u + in[size - 1 - k]) % (uint64_t)coded] ^= in[k];
            }
            result = (coder ? penjing_huffman_decode : penjing_rans_decode)(tables, copy, (uint64_t)coded, back, 2,
                                                                            count, work, (uint64_t)work_size);
            must(round || (result == 0 && !memcmp(data, back, 2 * count)), "static coding is lossless");
            free(copy);
        }
        free(work);
    }
    free(data);
    free(back);
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *in, size_t size) {
    if (!tables) {
        tables = need(penjing_tables_size());
        penjing_tables_make(tables);
    }
    if (size < 8) return 0;
    Plan p = plan_of(in);
    attack(&p, in + 8, size - 8);
    round_trip(&p, in + 8, size - 8);
    if (size >= 10) static_codes(&p, in + 8, size - 8);
    return 0;
}

#ifdef PENJING_FUZZ_DRIVER
#include <time.h>

static uint64_t random_state = 88172645463325252u;

static uint32_t draw(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 32);
}

int main(int argc, char **argv) {
    static uint8_t input[4096];
    long seconds = 60;
    int replayed = 0;
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] == '-') {
            if (!strncmp(argv[i], "-max_total_time=", 16)) seconds = atol(argv[i] + 16);
            continue;
        }
        FILE *file = fopen(argv[i], "rb");
        if (!file) return 1;
        size_t size = fread(input, 1, sizeof input, file);
        fclose(file);
        LLVMFuzzerTestOneInput(input, size);
        replayed = 1;
    }
    if (replayed) return 0;
    unsigned long runs = 0;
    for (time_t end = time(0) + seconds; time(0) < end; runs++) {
        size_t size = 8 + draw() % (draw() & 1 ? 64 : sizeof input - 8);
        uint32_t mask = draw() & 1 ? 255 : 15;
        for (size_t i = 0; i < size; i++) input[i] = (uint8_t)(draw() & mask);
        LLVMFuzzerTestOneInput(input, size);
    }
    printf("%lu inputs, no fault\n", runs);
    return 0;
}
#endif
