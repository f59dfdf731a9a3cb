/* The hot loops of penjing's entropy coders.  See coder.h for the rules every function keeps.
 *
 * 1. Bytes and bits, and a binary range coder with carry (64-bit range, 32 bits shifted out at a time).
 * 2. The adaptive context coder for integer tensors.
 * 3. Tokens and tables, shared by the two static coders:
 * 4. interleaved rANS (Duda 2013, arXiv:1311.2540), and
 * 5. canonical Huffman codes. */
#include "coder.h"

#define INLINE static inline __attribute__((always_inline))
#define RARELY(x) __builtin_expect(!!(x), 0)

/* ---- 1. bytes, bits and a binary range coder ------------------------------------------------- */

INLINE uint32_t log2_of(uint64_t x) {
    uint32_t n = 0;
    for (uint32_t step = 32; step; step >>= 1) {
        if (x >> step) x >>= step, n += step;
    }
    return n;
}

/* Read and write bytes and bits (least significant first); past the end they only set `bad`. */
typedef struct {
    const uint8_t *at, *end;
    uint64_t bits;
    uint32_t held;
    int bad;
} Reader;

static uint32_t read_byte(Reader *r) {
    if (r->at < r->end) return *r->at++;
    r->bad = 1;
    return 0;
}

static uint64_t read_varint(Reader *r) {
    uint64_t value = 0;
    for (uint32_t shift = 0; shift < 63; shift += 7) {
        uint32_t byte = read_byte(r);
        value |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) return value;
    }
    r->bad = 1;
    return 0;
}

static uint64_t read_bits(Reader *r, uint32_t count) {
    while (r->held < count) {
        r->bits |= (uint64_t)read_byte(r) << r->held;
        r->held += 8;
    }
    uint64_t value = r->bits & (((uint64_t)1 << count) - 1);
    r->bits >>= count;
    r->held -= count;
    return value;
}

typedef struct {
    uint8_t *out;
    uint64_t size, capacity, bits;
    uint32_t held;
    int bad;
} Writer;

static void write_byte(Writer *w, uint32_t byte) {
    if (w->size < w->capacity) {
        w->out[w->size++] = (uint8_t)byte;
    } else {
        w->bad = 1;
    }
}

static void write_varint(Writer *w, uint64_t value) {
    for (; value >= 128; value >>= 7) write_byte(w, 128 | (uint32_t)(value & 127));
    write_byte(w, (uint32_t)value);
}

static void write_bits(Writer *w, uint64_t value, uint32_t count) {
    w->bits |= value << w->held;
    w->held += count;
    for (; w->held >= 8; w->held -= 8, w->bits >>= 8) write_byte(w, (uint32_t)(w->bits & 255));
}

static void write_rest(Writer *w) {
    if (w->held) write_byte(w, (uint32_t)(w->bits & 255));
    w->bits = w->held = 0;
}

typedef struct {
    uint64_t low, range;
    uint8_t *out;
    size_t size, capacity;
    int full;
} Encoder;

typedef struct {
    uint64_t code, range;
    const uint8_t *in;
    size_t position, size;
} Decoder;

static void encoder_start(Encoder *e, uint8_t *out, size_t capacity) {
    e->low = 0;
    e->range = ~(uint64_t)0;
    e->out = out;
    e->size = 0;
    e->capacity = capacity;
    e->full = 0;
}

static void encoder_carry(Encoder *e) {
    size_t i = e->size;
    while (i > 0 && ++e->out[--i] == 0) {
    }
}

static void encoder_byte(Encoder *e, uint8_t byte) {
    if (e->size < e->capacity) {
        e->out[e->size++] = byte;
    } else {
        e->full = 1;
    }
}

/* `one` is the probability of a set bit in 1/65536, from 1 to 65535. */
INLINE void encode_bit(Encoder *e, uint32_t one, int bit) {
    uint64_t bound = (e->range >> 16) * one;
    if (bit) {
        e->range = bound;
    } else {
        e->low += bound;
        e->range -= bound;
        if (e->low < bound) encoder_carry(e);
    }
    if (e->range < ((uint64_t)1 << 32)) {
        for (int shift = 56; shift >= 32; shift -= 8) encoder_byte(e, (uint8_t)(e->low >> shift));
        e->low <<= 32;
        e->range <<= 32;
    }
}

/* Write as few bytes as identify the interval; the decoder reads zeros past the end. */
static void encoder_finish(Encoder *e) {
    uint64_t last = e->range - 1;
    for (int zeros = 64; zeros >= 0; zeros -= 8) {
        uint64_t mask = zeros == 64 ? ~(uint64_t)0 : ((uint64_t)1 << zeros) - 1;
        uint64_t up = (0 - e->low) & mask; /* distance to the next multiple of 2^zeros */
        if (up > last) continue;
        uint64_t value = e->low + up;
        if (value < e->low) encoder_carry(e);
        for (int shift = 56; shift >= zeros; shift -= 8) encoder_byte(e, (uint8_t)(value >> shift));
        break;
    }
    while (e->size > 0 && e->out[e->size - 1] == 0 && !e->full) e->size--;
}

static uint32_t decoder_word(Decoder *d) {
    uint32_t word = 0;
    if (d->size - d->position >= 4) {
        const uint8_t *p = d->in + d->position;
        word = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
        d->position += 4;
        return word;
    }
    for (int i = 0; i < 4; i++) {
        word <<= 8;
        if (d->position < d->size) word |= d->in[d->position++];
    }
    return word;
}

static void decoder_start(Decoder *d, const uint8_t *in, size_t size) {
    d->in = in;
    d->size = size;
    d->position = 0;
    d->range = ~(uint64_t)0;
    d->code = (uint64_t)decoder_word(d) << 32;
    d->code |= decoder_word(d);
}

INLINE void decoder_shift(Decoder *d) {
    if (d->range < ((uint64_t)1 << 32)) {
        d->range <<= 32;
        d->code = d->code << 32 | decoder_word(d);
    }
}

INLINE int decode_bit(Decoder *d, uint32_t one) {
    uint64_t bound = (d->range >> 16) * one;
    int bit = d->code < bound;
    if (bit) {
        d->range = bound;
    } else {
        d->code -= bound;
        d->range -= bound;
    }
    decoder_shift(d);
    return bit;
}

/* The same without a branch, for bits that no processor can guess. */
INLINE int decode_even_bit(Decoder *d, uint32_t one) {
    uint64_t bound = (d->range >> 16) * one, rest = d->range - bound;
    uint64_t taken = 0 - (uint64_t)(d->code < bound);
    d->range = rest ^ ((rest ^ bound) & taken);
    d->code -= bound & ~taken;
    decoder_shift(d);
    return (int)(taken & 1);
}

/* ---- 2. adaptive context coder -------------------------------------------------------------- */

/* A symbol q is coded as bits: "|q| larger than i" for i = 0, 1, ..., then its sign.  The first kind
 * follow an ordinal logistic model: P(|q| > i) = logistic(threshold[i] + s), where s is a sum of learned
 * effects of the row, column, channel and kernel position that q is in, each updated like a Bayesian
 * logistic regression with a diagonal posterior.  The sign follows a linear logistic model of the
 * neighbours in the kernel (or picture); how sure that model is also enters s.  Everything is learned
 * while decoding, in integer arithmetic. */

/* Compile-time check: right shifts of negative numbers must keep the sign. */
typedef char arithmetic_shift_needed[(-1 >> 1) == -1 ? 1 : -1];

#define UNARY 14      /* sizes coded bit by bit before exp-Golomb takes over */
#define FEATURES 4    /* groups of neighbours that share a weight in the sign's model */
#define NEIGHBOURS 10 /* in all groups */
#define NEARS 4       /* ways to look at neighbours: not, at two groups, at four, at four for signs alone */
#define LARGEST_KERNEL 4096
#define LARGEST_SLOPE ((int64_t)1 << 40)
#define SHARED 2 /* effects that move together after a row: of its two outer loops */
#define RUN_LENGTH 1024
#define ONE (1 << 16) /* logits, effects and information are in 1/65536 */
#define MOST_SURE (4 * ONE)
#define CAP 120u        /* information that effects are limited to, so that they never stop learning */
#define INFORMATION_CAP (2046u << 12)

typedef struct {
    uint16_t one, spread; /* p and p (1 - p), in 1/65536 */
} Squash;

typedef struct {
    Squash squash[1024]; /* the logistic function in steps of 1/32 from -16 */
    uint16_t gain[2048]; /* 65536 / h for h in steps of 1/16 */
    uint16_t rate[1024]; /* 65536 / (n + 1.6) */
    uint16_t cost[4097]; /* -log2(i / 4096) in 1/2048 bits */
} Tables;

/* A bit's state: probability of a set bit in the upper 22 bits, times seen in the lower 10. */
typedef uint32_t State;

#define HALF ((State)1 << 31)

/* A term of a logit, and the information behind it. */
typedef struct {
    int32_t value;
    uint32_t information;
} Effect;

/* What symbols teach about their logit: the slope of their log-likelihood, and its curvature. */
typedef struct {
    int32_t slope;
    uint32_t information;
} Lesson;

typedef struct {
    const Tables *tables;
    Effect threshold[UNARY];
    int32_t side[FEATURES];
    uint32_t side_information, threshold_cap;
    uint32_t shift, largest;
    State low[3], prefix[32], suffix[32][3];
} Model;

/* What is done with each bit: encode it, decode it, or only add up its cost. */
typedef struct {
    Encoder encoder;
    Decoder decoder;
    uint64_t total;
} Port;

enum { ENCODE, DECODE, MEASURE };

/* Sums that may wrap around, on damaged input only, without being undefined. */
INLINE int32_t plus(int32_t a, int32_t b) { return (int32_t)((uint32_t)a + (uint32_t)b); }
INLINE int32_t times(int32_t a, int32_t b) { return (int32_t)((uint32_t)a * (uint32_t)b); }

/* Sizes above the first step move 11/8 as fast with the logit. */
INLINE int32_t steeper(int32_t a) { return plus(plus(a, a >> 1), -(a >> 3)); }

INLINE int port_bit(Port *port, const Tables *t, uint32_t one, int bit, int what) {
    if (what == ENCODE) encode_bit(&port->encoder, one, bit);
    if (what == DECODE) bit = decode_bit(&port->decoder, one);
    if (what == MEASURE) port->total += t->cost[(bit ? one : 65536 - one) >> 4];
    return bit;
}

/* A bit with a counted probability of its own. */
INLINE int code_bit(Port *port, const Tables *t, State *s, int bit, int what) {
    uint32_t n = *s & 1023, p = *s >> 10;
    uint64_t rate = t->rate[n];
    bit = port_bit(port, t, p >> 6 | 1, bit, what);
    if (bit) {
        p += (uint32_t)(((((uint32_t)1 << 22) - p) * rate) >> 16);
    } else {
        p -= (uint32_t)((p * rate) >> 16);
    }
    *s = p << 10 | (n + (n < 60));
    return bit;
}

INLINE const Squash *squash_of(const Tables *t, int32_t logit) {
    uint32_t i = (uint32_t)((logit >> 11) + 512);
    if (RARELY(i > 1023)) i = logit < 0 ? 0 : 1023;
    return &t->squash[i];
}

INLINE int32_t scaled(const Tables *t, int32_t slope, uint32_t information) {
    return (int32_t)(((int64_t)slope * t->gain[information >> 12]) >> 16);
}

INLINE void effect_update(const Tables *t, Effect *e, const Lesson *l, uint32_t cap) {
    uint32_t h = e->information + l->information;
    h = h > cap ? cap : h;
    e->information = h;
    e->value = plus(e->value, scaled(t, l->slope, h));
}

/* What a run of symbols taught. */
typedef struct {
    int64_t slope;
    uint64_t information;
} Sum;

INLINE void sum_add(Sum *s, const Lesson *l) {
    s->slope += l->slope;
    s->information += l->information;
}

/* The same after a run of symbols, in which other effects have moved too: SHARED of them share the step. */
INLINE void effect_update_late(const Tables *t, Effect *e, const Sum *s, uint32_t cap) {
    uint64_t h = e->information + s->information * SHARED;
    if (h <= cap) {
        e->value = plus(e->value, scaled(t, (int32_t)s->slope, (uint32_t)h));
    } else {
        int64_t most = LARGEST_SLOPE, slope = s->slope > most ? most : s->slope < -most ? -most : s->slope;
        int64_t limit = (int64_t)(h > s->information + cap ? s->information + cap : h);
        e->value = plus(e->value, (int32_t)(slope * ONE / limit));
    }
    h = e->information + s->information;
    e->information = h > cap ? cap : (uint32_t)h;
}

/* exp-Golomb of `rest` >= 0 with adaptive prefix and two adaptive suffix bits. */
INLINE uint32_t code_rest(Port *port, Model *m, uint32_t rest, int what) {
    uint32_t wanted = what == DECODE ? 0 : log2_of((uint64_t)rest + 1), length = 0, value = 1;
    for (; length < 31; length++) {
        if (!code_bit(port, m->tables, &m->prefix[length], length < wanted, what)) break;
    }
    for (uint32_t i = 0; i < length; i++) {
        int bit = (int)((rest + 1) >> (length - 1 - i)) & 1;
        if (i < 2) {
            bit = code_bit(port, m->tables, &m->suffix[length][i ? 1 + (value & 1) : 0], bit, what);
        } else {
            bit = port_bit(port, m->tables, 32768, bit, what);
        }
        value = value << 1 | (uint32_t)bit;
    }
    return value - 1;
}

INLINE void note_size(Model *m, uint32_t size) { m->largest = size > m->largest ? size : m->largest; }

/* The size whose first bit was `some`: more unary bits, the rest, and the bits that were shifted out. */
INLINE uint32_t code_size(Port *port, Model *m, int32_t logit, uint32_t size, uint32_t some, Lesson *lesson,
                          int what) {
    uint32_t high = size >> m->shift, i = 0;
    if (some) {
        logit = steeper(logit);
        for (i = 1; i < UNARY; i++) {
            Effect *e = &m->threshold[i];
            const Squash *q = squash_of(m->tables, plus(logit, e->value));
            int bit = port_bit(port, m->tables, q->one, high > i, what);
            Lesson more = {(bit ? ONE : 0) - q->one, q->spread};
            effect_update(m->tables, e, &more, m->threshold_cap);
            lesson->slope += steeper(more.slope);
            lesson->information += 2 * more.information;
            if (!bit) break;
        }
        if (RARELY(i == UNARY)) {
            i += code_rest(port, m, high - i, what);
            note_size(m, i);
        }
    }
    if (m->shift == 0) return i;
    State *low = &m->low[i > 2 ? 2 : i];
    for (uint32_t k = m->shift; k-- > 0; low = 0) {
        int bit = (int)(size >> k) & 1;
        bit = low ? code_bit(port, m->tables, low, bit, what) : port_bit(port, m->tables, 32768, bit, what);
        i = i << 1 | (uint32_t)bit;
    }
    note_size(m, i);
    return i;
}

/* Neighbours in the kernel that were coded before, in groups of equal distance: their signed sums. */
typedef struct {
    int32_t sum[FEATURES], logit;
} Side;

INLINE void side_sums(const Model *m, Side *s, const int8_t *seen, const ptrdiff_t *back, int groups) {
    s->logit = 0;
    if (groups >= 2) {
        s->sum[0] = seen[back[0]] + seen[back[1]];
        s->sum[1] = seen[back[2]] + seen[back[3]];
        s->logit = plus(times(m->side[0], s->sum[0]), times(m->side[1], s->sum[1]));
    }
    if (groups == FEATURES) {
        s->sum[2] = seen[back[4]] + seen[back[5]];
        s->sum[3] = seen[back[6]] + seen[back[7]] + seen[back[8]] + seen[back[9]];
        s->logit = plus(s->logit, plus(times(m->side[2], s->sum[2]), times(m->side[3], s->sum[3])));
    }
}

/* Where the sign is sure, sizes are larger. */
INLINE int32_t size_logit(const Side *s) {
    int32_t sure = s->logit < 0 ? ~s->logit : s->logit;
    return (sure > MOST_SURE ? MOST_SURE : sure) * 5 >> 4;
}

INLINE uint32_t code_sign(Port *port, Model *m, const Side *s, int negative, int groups, int what) {
    if (groups == 0 && what == DECODE) return (uint32_t)decode_even_bit(&port->decoder, 32768);
    if (groups == 0) return (uint32_t)port_bit(port, m->tables, 32768, negative, what);
    const Squash *q = squash_of(m->tables, s->logit);
    if (what == DECODE) {
        negative = decode_even_bit(&port->decoder, q->one);
    } else {
        negative = port_bit(port, m->tables, q->one, negative, what);
    }
    uint32_t h = m->side_information + q->spread;
    m->side_information = h = h > INFORMATION_CAP ? INFORMATION_CAP : h;
    int32_t step = scaled(m->tables, negative * ONE - q->one, h);
    for (int j = 0; j < groups; j++) m->side[j] = plus(m->side[j], times(step, s->sum[j]));
    return (uint32_t)negative;
}

INLINE int32_t code_symbol(Port *port, Model *m, int32_t logit, const Side *side, int32_t symbol, Lesson *lesson,
                           Sum *first, int groups, int what) {
    const Squash *q = squash_of(m->tables, plus(logit, m->threshold[0].value));
    uint32_t size = symbol < 0 ? 0u - (uint32_t)symbol : (uint32_t)symbol;
    uint32_t some = (uint32_t)port_bit(port, m->tables, q->one, size >> m->shift != 0, what);
    lesson->slope = (some ? ONE : 0) - q->one;
    lesson->information = q->spread;
    sum_add(first, lesson);
    if (!some && m->shift == 0) return 0;
    size = code_size(port, m, logit, size, some, lesson, what);
    if (size == 0) return 0;
    uint32_t negative = code_sign(port, m, side, symbol < 0, groups, what);
    return (int32_t)((size ^ (0 - negative)) + negative);
}

/* Where the symbols are: rows (p, q) of symbols j. */
typedef struct {
    uint8_t *data;
    int8_t *seen;     /* all symbols coded so far, in that order, limited to -2 .. 2 */
    int width, near, columned;
    size_t size[3], stride[3];
    size_t place[3];                      /* step of the kernel position */
    const ptrdiff_t (*back)[NEIGHBOURS];  /* offset in `seen` of each neighbour by kernel position; 0 for none */
    Effect *outer, *inner, *column;       /* of p, of q, of j */
    uint32_t prior;                       /* of a row's own effect */
} View;

INLINE int32_t view_load(const View *v, size_t i) {
    if (v->width == 1) return ((const int8_t *)v->data)[i];
    if (v->width == 2) return ((const int16_t *)(const void *)v->data)[i];
    return ((const int32_t *)(const void *)v->data)[i];
}

INLINE void view_store(const View *v, size_t i, int32_t value) {
    if (v->width == 1) {
        ((int8_t *)v->data)[i] = (int8_t)value;
    } else if (v->width == 2) {
        ((int16_t *)(void *)v->data)[i] = (int16_t)value;
    } else {
        ((int32_t *)(void *)v->data)[i] = value;
    }
}

/* The loop over all symbols; compiled once for each `near`, `columned` and `what`. */
INLINE void code_view(Port *outside, Model *m, const View *view, int near, int columned, int what) {
    const Tables *const t = m->tables;
    const uint32_t cap = CAP << 16;
    const int groups = near == 1 ? 2 : near ? FEATURES : 0;
    const View v = *view;
    int8_t *restrict seen = v.seen;
    Port inside = *outside, *port = &inside; /* a copy that can live in registers */
    for (size_t p = 0; p < v.size[0]; p++) {
        for (size_t q = 0; q < v.size[1]; q++) {
            size_t at = p * v.stride[0] + q * v.stride[1];
            const ptrdiff_t (*back)[NEIGHBOURS] = v.back + (p * v.place[0] + q * v.place[1]);
            Effect *column = v.column, row = {0, v.prior};
            const int32_t base = plus(v.outer[p].value, v.inner[q].value);
            Lesson lesson = {0, 0};
            Sum total = {0, 0};
            for (size_t j = 0; j < v.size[2];) {
                const size_t end = v.size[2] - j > RUN_LENGTH ? j + RUN_LENGTH : v.size[2];
                Sum first = {0, 0};
                for (; j < end; j++) {
                    Side side = {{0}, 0};
                    int32_t logit = plus(base, row.value);
                    if (near) {
                        seen[0] = 0;
                        side_sums(m, &side, seen, *back, groups);
                        if (near < 3) logit = plus(logit, size_logit(&side));
                    }
                    if (columned) logit = plus(logit, column->value);
                    int32_t symbol = what == DECODE ? 0 : view_load(&v, at);
                    symbol = code_symbol(port, m, logit, &side, symbol, &lesson, &first, groups, what);
                    if (what == DECODE) view_store(&v, at, symbol);
                    sum_add(&total, &lesson);
                    effect_update(t, &row, &lesson, cap);
                    if (columned) effect_update(t, column++, &lesson, cap);
                    if (near) {
                        *seen++ = (int8_t)(symbol > 2 ? 2 : symbol < -2 ? -2 : symbol);
                        back += v.place[2];
                    }
                    at += v.stride[2];
                }
                effect_update_late(t, m->threshold, &first, m->threshold_cap);
            }
            effect_update_late(t, &v.outer[p], &total, cap);
            effect_update_late(t, &v.inner[q], &total, cap);
        }
    }
    *outside = inside;
}

#define RUN(name, what)                                                                                 \
    static void name(Port *p, Model *m, const View *v) {                                                \
        switch (v->near * 2 + v->columned) {                                                            \
        case 0: code_view(p, m, v, 0, 0, what); break;                                                  \
        case 1: code_view(p, m, v, 0, 1, what); break;                                                  \
        case 2: code_view(p, m, v, 1, 0, what); break;                                                  \
        case 3: code_view(p, m, v, 1, 1, what); break;                                                  \
        case 4: code_view(p, m, v, 2, 0, what); break;                                                  \
        case 5: code_view(p, m, v, 2, 1, what); break;                                                  \
        case 6: code_view(p, m, v, 3, 0, what); break;                                                  \
        default: code_view(p, m, v, 3, 1, what);                                                        \
        }                                                                                               \
    }
RUN(run_encode, ENCODE)
RUN(run_decode, DECODE)
RUN(run_measure, MEASURE)

/* How a tensor is coded; all of it is in the header. */
typedef struct {
    uint32_t scan, near, column, prior, fast, shift, height, width, transposed;
} Choice;

static uint64_t header_write(uint8_t *out, uint64_t capacity, const Choice *c) {
    Writer w = {out, 0, capacity, 0, 0, 0};
    uint32_t picture = c->height * c->width != 0, more = c->shift || picture || c->transposed;
    write_byte(&w, c->scan | c->near << 2 | c->column << 4 | c->prior << 5 | c->fast << 6 | more << 7);
    if (more) write_byte(&w, c->shift | picture << 5 | c->transposed << 6);
    if (picture) write_varint(&w, c->height), write_varint(&w, c->width);
    return w.bad ? 0 : w.size;
}

static int header_read(Reader *r, Choice *c) {
    uint32_t first = read_byte(r), second = first >> 7 ? read_byte(r) : 0;
    *c = (Choice){first & 3, (first >> 2) & 3, (first >> 4) & 1, (first >> 5) & 1, (first >> 6) & 1,
                  second & 31, 0, 0, (second >> 6) & 1};
    if ((second >> 5) & 1) {
        uint64_t height = read_varint(r), width = read_varint(r);
        if (height < 1 || width < 1 || height > LARGEST_KERNEL || width > LARGEST_KERNEL) return 0;
        c->height = (uint32_t)height;
        c->width = (uint32_t)width;
    }
    return !r->bad && c->shift < 31 && !(second >> 7);
}

/* Bump allocation in the caller's buffer; with no buffer it only counts. */
typedef struct {
    uint8_t *memory;
    uint64_t used, size;
    int full;
} Arena;

static void *arena_take(Arena *a, uint64_t count, uint64_t size) {
    if (count > (((uint64_t)1 << 62) - a->used) / size) {
        a->full = 1;
        return 0;
    }
    uint64_t start = a->used;
    a->used += (count * size + 7) & ~(uint64_t)7;
    if (a->memory && a->used > a->size) a->full = 1;
    return a->memory && !a->full ? a->memory + start : 0;
}

static Effect *effects_make(Arena *arena, uint64_t count, uint32_t information) {
    Effect *e = arena_take(arena, count, sizeof(Effect));
    for (uint64_t i = 0; e && i < count; i++) e[i] = (Effect){0, information};
    return e;
}

/* Left and up; up's left and right; two left and two up; the four knight's moves. */
static void back_make(ptrdiff_t (*back)[NEIGHBOURS], uint32_t height, uint32_t width, ptrdiff_t step) {
    static const int8_t MOVES[NEIGHBOURS][2] = {{0, -1}, {-1, 0}, {-1, -1}, {-1, 1},  {0, -2},
                                                {-2, 0}, {-1, -2}, {-1, 2}, {-2, -1}, {-2, 1}};
    for (int32_t y = 0, k = 0; y < (int32_t)height; y++) {
        for (int32_t x = 0; x < (int32_t)width; x++, k++) {
            for (int i = 0; i < NEIGHBOURS; i++) {
                int32_t dy = MOVES[i][0], dx = MOVES[i][1];
                int inside = y + dy >= 0 && x + dx >= 0 && x + dx < (int32_t)width;
                back[k][i] = inside ? (dy * (ptrdiff_t)width + dx) * step : 0;
            }
        }
    }
}

static const ptrdiff_t NOWHERE[1][NEIGHBOURS];

/* The three loops for a tensor of `shape` (out, in, y, x): sizes, strides and kernel positions. */
static int loops_make(View *v, const uint64_t *shape, Choice *c, uint64_t *count) {
    uint64_t n[4] = {shape[0], shape[1], shape[2], shape[3]}, all = 1;
    for (int i = 0; i < 4; i++) {
        if (n[i] == 0 || n[i] > ((uint64_t)1 << 40) / all) return 0;
        all *= n[i];
    }
    if (c->transposed) {
        if (n[2] * n[3] != 1) return 0;
        n[0] = shape[1], n[1] = shape[0];
    }
    if (c->height > LARGEST_KERNEL || c->width > LARGEST_KERNEL || !c->height != !c->width) return 0;
    if (c->height) {
        uint64_t inputs = n[1] * n[2] * n[3];
        n[2] = c->height, n[3] = c->width;
        if (inputs % (n[2] * n[3])) return 0;
        n[1] = inputs / (n[2] * n[3]);
    }
    uint64_t kernel = n[2] * n[3], step = c->transposed ? n[0] : 1;
    uint64_t out[3] = {n[0], c->transposed ? 1 : n[1] * kernel, 0}, in[3] = {n[1], kernel * step, 0},
             at[3] = {kernel, step, 1}, flat[3] = {n[1] * kernel, step, 0}, one[3] = {1, 0, 0},
             y[3] = {n[2], n[3] * step, n[3]}, x[3] = {n[3], step, 1};
    const uint64_t *scans[4][3] = {{out, in, at}, {in, out, at}, {in, at, out}, {one, out, flat}};
    if (n[1] == 1) scans[2][0] = y, scans[2][1] = x;
    for (int i = 0; i < 3; i++) {
        v->size[i] = (size_t)scans[c->scan][i][0];
        v->stride[i] = (size_t)scans[c->scan][i][1];
        v->place[i] = c->near ? (size_t)scans[c->scan][i][2] : 0;
    }
    if (c->near && (kernel == 1 || kernel > LARGEST_KERNEL || c->scan == 3)) return 0;
    c->height = (uint32_t)n[2], c->width = (uint32_t)n[3];
    *count = all;
    return 1;
}

/* Lay everything out in the arena; 0 if the choice does not fit the shape or the arena is too small. */
static Model *context_make(View *v, Arena *arena, const Tables *t, const uint64_t *shape, Choice c, uint64_t *count) {
    if (!loops_make(v, shape, &c, count)) return 0;
    Model *m = arena_take(arena, 1, sizeof *m);
    ptrdiff_t (*back)[NEIGHBOURS] = 0;
    v->near = (int)c.near;
    v->columned = (int)c.column;
    v->prior = (c.prior ? 9u : 4u) << 16;
    v->outer = effects_make(arena, v->size[0], 3 << 16);
    v->inner = effects_make(arena, v->size[1], 3 << 16);
    v->column = c.column ? effects_make(arena, v->size[2], 3 << 16) : 0;
    v->seen = 0;
    if (c.near) {
        back = arena_take(arena, (uint64_t)c.height * c.width, sizeof *back);
        v->seen = arena_take(arena, *count, 1);
    }
    v->back = back ? (const ptrdiff_t (*)[NEIGHBOURS])back : NOWHERE;
    if (!arena->memory || arena->full) return 0;
    if (back) back_make(back, c.height, c.width, c.scan == 2 ? (ptrdiff_t)v->size[2] : 1);
    m->tables = t;
    for (int i = 0; i < UNARY; i++) m->threshold[i] = (Effect){i ? -ONE : 0, ONE};
    for (int i = 0; i < FEATURES; i++) m->side[i] = i ? 0 : -ONE / 2;
    m->side_information = 6 * ONE;
    m->threshold_cap = (c.fast ? 15u : 100u) << 16;
    m->shift = c.shift;
    m->largest = 0;
    for (int i = 0; i < 3; i++) m->low[i] = HALF;
    for (int i = 0; i < 32; i++) {
        m->prefix[i] = HALF;
        for (int j = 0; j < 3; j++) m->suffix[i][j] = HALF;
    }
    return m;
}

PENJING_API int64_t penjing_tables_size(void) { return sizeof(Tables); }

/* Fill the tables; exponentials and logarithms by fixed-point steps, the same on every platform. */
PENJING_API int64_t penjing_tables_make(void *memory) {
    Tables *t = memory;
    uint64_t power = 4228380000u; /* exp(-(k + 1/2) / 32) in 1/2^32 */
    for (int k = 0; k < 512; k++) {
        uint32_t one = (uint32_t)(((uint64_t)1 << 48) / (((uint64_t)1 << 32) + power));
        one = one > 65535 ? 65535 : one;
        uint32_t other = 65536 - one, spread = one * other >> 16;
        t->squash[512 + k] = (Squash){(uint16_t)(one | 1), (uint16_t)(spread ? spread : 1)};
        t->squash[511 - k] = (Squash){(uint16_t)(other | 1), (uint16_t)(spread ? spread : 1)};
        power = (power * 4162825044u) >> 32; /* exp(-1/32) */
    }
    for (uint32_t i = 0; i < 2048; i++) t->gain[i] = (uint16_t)(i < 17 ? 65535 : (65536u * 16 + i / 2) / i);
    for (uint32_t n = 0; n < 1024; n++) t->rate[n] = (uint16_t)(655360u / (10 * n + 16));
    for (uint32_t i = 1; i <= 4096; i++) {
        uint32_t whole = log2_of(i), fraction = 0;
        uint64_t x = (uint64_t)i << (31 - whole); /* in [1, 2), in 1/2^31 */
        for (int k = 0; k < 12; k++) {
            x = (x * x) >> 31;
            fraction = fraction << 1 | (uint32_t)(x >> 32);
            x >>= x >> 32;
        }
        t->cost[i] = (uint16_t)((((12 - whole) << 12) - fraction + 1) >> 1);
    }
    t->cost[0] = t->cost[1];
    return 0;
}

static Choice choice_of(const uint32_t *fields) {
    return (Choice){fields[0] & 3, fields[1],      fields[2] & 1, fields[3] & 1, fields[4] & 1,
                    fields[5],     fields[6],      fields[7],     fields[8] & 1};
}

/* Bytes of work memory for a shape (out, in, y, x) and a choice. */
PENJING_API int64_t penjing_context_work(const uint64_t *shape, const uint32_t *choice) {
    View v;
    Arena arena = {0, 0, 0, 0};
    uint64_t count = 0;
    context_make(&v, &arena, 0, shape, choice_of(choice), &count);
    return count && !arena.full ? (int64_t)arena.used : PENJING_ARGUMENT;
}

/* The same for the choice in a payload's header. */
PENJING_API int64_t penjing_context_decode_work(const uint8_t *in, uint64_t in_size, const uint64_t *shape) {
    View v;
    Arena arena = {0, 0, 0, 0};
    uint64_t count = 0;
    Choice c;
    Reader reader = {in, in + in_size, 0, 0, 0};
    if (!header_read(&reader, &c)) return PENJING_DAMAGED;
    context_make(&v, &arena, 0, shape, c, &count);
    return count && !arena.full ? (int64_t)arena.used : PENJING_DAMAGED;
}

static Model *context_open(View *v, const void *tables, void *data, int width, const uint64_t *shape, const Choice *c,
                           void *work, uint64_t work_size) {
    Arena arena = {work, 0, work_size, 0};
    uint64_t count;
    v->data = data;
    v->width = width;
    if ((uintptr_t)work % 8 || (width != 1 && width != 2 && width != 4) || c->near >= NEARS || c->shift > 30) return 0;
    return context_make(v, &arena, tables, shape, *c, &count);
}

/* Code the integers `data`, `width` bytes each, in C order of `shape`. */
PENJING_API int64_t penjing_context_encode(const void *tables, const void *data, int width, const uint64_t *shape,
                                           const uint32_t *choice, void *work, uint64_t work_size, uint8_t *out,
                                           uint64_t capacity) {
    View v;
    Choice c = choice_of(choice);
    Model *m = context_open(&v, tables, (void *)(uintptr_t)data, width, shape, &c, work, work_size);
    uint64_t head = header_write(out, capacity, &c);
    if (!m || !head) return PENJING_ARGUMENT;
    Port port = {{0}, {0}, 0};
    encoder_start(&port.encoder, out + head, (size_t)(capacity - head));
    run_encode(&port, m, &v);
    encoder_finish(&port.encoder);
    return port.encoder.full ? PENJING_SPACE : (int64_t)(head + port.encoder.size);
}

/* The cost in 1/2048 bits. */
PENJING_API int64_t penjing_context_measure(const void *tables, const void *data, int width, const uint64_t *shape,
                                            const uint32_t *choice, void *work, uint64_t work_size) {
    View v;
    Choice c = choice_of(choice);
    Model *m = context_open(&v, tables, (void *)(uintptr_t)data, width, shape, &c, work, work_size);
    if (!m) return PENJING_ARGUMENT;
    Port port = {{0}, {0}, 0};
    run_measure(&port, m, &v);
    return (int64_t)port.total;
}

PENJING_API int64_t penjing_context_decode(const void *tables, const uint8_t *in, uint64_t in_size, void *data,
                                           int width, const uint64_t *shape, void *work, uint64_t work_size) {
    View v;
    Choice c;
    Reader reader = {in, in + in_size, 0, 0, 0};
    if (!header_read(&reader, &c)) return PENJING_DAMAGED;
    Model *m = context_open(&v, tables, data, width, shape, &c, work, work_size);
    if (!m) return PENJING_DAMAGED;
    Port port = {{0}, {0}, 0};
    decoder_start(&port.decoder, reader.at, (size_t)(reader.end - reader.at));
    run_decode(&port, m, &v);
    if (m->largest > (uint32_t)1 << (8 * width - 1)) return PENJING_DAMAGED;
    return port.decoder.position == port.decoder.size ? 0 : PENJING_DAMAGED;
}

/* ---- 3. tokens and tables -------------------------------------------------------------------- */

/* A symbol becomes z = symbol - base, or its zigzag when `fold` is set.  Below 1 << direct a token is z;
 * above, it holds the exponent and the two bits after the leading one, and the rest follows raw. */
typedef struct {
    int64_t base;
    uint32_t fold, direct;
} Tokens;

INLINE uint64_t token_fold(const Tokens *t, int64_t symbol) {
    int64_t d = symbol - t->base;
    if (!t->fold) return (uint64_t)d;
    return d < 0 ? 2 * (uint64_t)(-(d + 1)) + 1 : 2 * (uint64_t)d;
}

INLINE int64_t token_unfold(const Tokens *t, uint64_t z) {
    if (!t->fold) return (int64_t)(z + (uint64_t)t->base);
    return (int64_t)((z & 1 ? ~(z >> 1) : z >> 1) + (uint64_t)t->base);
}

INLINE uint32_t token_of(const Tokens *t, uint64_t z, uint32_t *raw_bits) {
    if (z >> t->direct == 0) {
        *raw_bits = 0;
        return (uint32_t)z;
    }
    uint32_t exponent = log2_of(z);
    *raw_bits = exponent - 2;
    return ((uint32_t)1 << t->direct) + ((exponent - t->direct) << 2) + (uint32_t)((z >> (exponent - 2)) & 3);
}

/* Raw bits of a token, and its value without them. */
INLINE uint32_t token_base(const Tokens *t, uint32_t token, uint64_t *value) {
    if (token >> t->direct == 0) {
        *value = token;
        return 0;
    }
    uint32_t above = token - ((uint32_t)1 << t->direct), exponent = t->direct + (above >> 2);
    *value = (uint64_t)(4 | (above & 3)) << (exponent - 2);
    return exponent - 2;
}

#define MAX_TOKENS 1152 /* (1 << 10) direct ones and four for each larger exponent of a 33-bit value */

/* A flat array of integers: `width` bytes each, negative for unsigned ones. */
INLINE int64_t flat_load(const void *data, int width, uint64_t i) {
    switch (width) {
    case 1: return ((const int8_t *)data)[i];
    case -1: return ((const uint8_t *)data)[i];
    case 2: return ((const int16_t *)data)[i];
    case -2: return ((const uint16_t *)data)[i];
    case 4: return ((const int32_t *)data)[i];
    default: return ((const uint32_t *)data)[i];
    }
}

INLINE void flat_store(void *data, int width, uint64_t i, uint32_t value) {
    switch (width) {
    case 1:
    case -1: ((uint8_t *)data)[i] = (uint8_t)value; break;
    case 2:
    case -2: ((uint16_t *)data)[i] = (uint16_t)value; break;
    default: ((uint32_t *)data)[i] = value;
    }
}

static int width_holds(int width, int64_t value) {
    int64_t span = (int64_t)1 << (8 * (width < 0 ? -width : width));
    return width < 0 ? value >= 0 && value < span : value >= -span / 2 && value < span / 2;
}

static int width_valid(int width) {
    int size = width < 0 ? -width : width;
    return size == 1 || size == 2 || size == 4;
}

/* Count the tokens of an array into `counts` (MAX_TOKENS of them); return their raw bits. */
PENJING_API int64_t penjing_tokens_count(const void *data, int width, uint64_t count, int64_t base, uint32_t fold,
                                         uint32_t direct, uint64_t *counts) {
    if (!width_valid(width) || direct < 2 || direct > 10) return PENJING_ARGUMENT;
    Tokens tokens = {base, fold, direct};
    uint64_t raw_bits = 0;
    for (uint32_t t = 0; t < MAX_TOKENS; t++) counts[t] = 0;
    for (uint64_t i = 0; i < count; i++) {
        uint32_t bits, token = token_of(&tokens, token_fold(&tokens, flat_load(data, width, i)), &bits);
        if (token >= MAX_TOKENS) return PENJING_ARGUMENT;
        counts[token]++;
        raw_bits += bits;
    }
    return (int64_t)raw_bits;
}

/* For numbers in a table: a bit length each, coded as a tree, then the bits below the leading one. */
typedef struct {
    State length[3][16];
    State next[16];
} TableModel;

static uint32_t code_number(Port *port, const Tables *m, TableModel *t, uint32_t *before, uint32_t number, int what) {
    uint32_t length = what == DECODE ? 0 : number ? log2_of(number) + 1 : 0, node = 1, value = 1;
    State *tree = t->length[*before == 0 ? 0 : *before < 6 ? 1 : 2];
    for (int i = 3; i >= 0; i--) {
        node = node << 1 | (uint32_t)code_bit(port, m, &tree[node], (int)(length >> i) & 1, what);
    }
    *before = length = node & 15;
    if (length == 0) return 0;
    for (uint32_t i = length - 1; i > 0; i--) {
        int bit = (int)(number >> (i - 1)) & 1;
        if (i == length - 1) {
            bit = code_bit(port, m, &t->next[length], bit, what);
        } else {
            bit = port_bit(port, m, 32768, bit, what);
        }
        value = value << 1 | (uint32_t)bit;
    }
    return value;
}

static void code_table(Port *port, uint16_t *numbers, uint32_t count, const Tables *m, int what) {
    TableModel t;
    uint32_t before = 0;
    State *states = (State *)(void *)&t;
    for (size_t i = 0; i < sizeof t / sizeof(State); i++) states[i] = HALF;
    for (uint32_t i = 0; i < count; i++) {
        numbers[i] = (uint16_t)code_number(port, m, &t, &before, numbers[i], what);
    }
}

/* Header shared by the static coders: direct and fold, the coder's own three bits, base, tokens used. */
static void tokens_write(Writer *w, const Tokens *t, uint32_t used, uint32_t extra) {
    write_byte(w, t->direct | t->fold << 4 | extra << 5);
    write_varint(w, t->base < 0 ? 2 * (uint64_t)(-(t->base + 1)) + 1 : 2 * (uint64_t)t->base);
    write_varint(w, used - 1);
}

static int tokens_read(Reader *r, Tokens *t, uint32_t *used, uint32_t *extra) {
    uint32_t first = read_byte(r);
    t->direct = first & 15;
    t->fold = (first >> 4) & 1;
    *extra = first >> 5;
    uint64_t base = read_varint(r), count = read_varint(r);
    if (r->bad || base >> 33 || count >= MAX_TOKENS || t->direct < 2 || t->direct > 10) return 0;
    t->base = (int64_t)(base >> 1) ^ -(int64_t)(base & 1);
    *used = (uint32_t)count + 1;
    return *used <= ((uint32_t)1 << t->direct) + ((33 - t->direct) << 2);
}

/* A table of numbers below 32768, coded with adaptive bits: its byte count, then its bytes. */
static void table_write(Writer *w, uint16_t *scratch, const uint16_t *numbers, uint32_t used, const Tables *t) {
    Port port = {{0}, {0}, 0};
    uint64_t room = w->capacity - w->size;
    if (w->bad || room < 3) {
        w->bad = 1;
        return;
    }
    for (uint32_t i = 0; i < used; i++) scratch[i] = numbers[i];
    encoder_start(&port.encoder, w->out + w->size + 2, (size_t)(room - 2));
    code_table(&port, scratch, used, t, ENCODE);
    encoder_finish(&port.encoder);
    size_t size = port.encoder.size;
    w->bad |= port.encoder.full || size >> 14;
    uint8_t *from = w->out + w->size + 2;
    write_varint(w, size); /* one or two bytes: close the gap after a short one */
    for (size_t i = 0; i < size; i++) write_byte(w, from[i]);
}

static int table_read(Reader *r, uint16_t *numbers, uint32_t used, const Tables *t) {
    Port port = {{0}, {0}, 0};
    uint64_t size = read_varint(r);
    if (r->bad || size > (uint64_t)(r->end - r->at)) return 0;
    decoder_start(&port.decoder, r->at, (size_t)size);
    code_table(&port, numbers, used, t, DECODE);
    r->at += size;
    return 1;
}

/* The raw bits of all tokens, in order, after their byte count. */
static void raw_write(Writer *w, const Tokens *t, uint32_t used, const void *data, int width, uint64_t count) {
    uint64_t total = 0;
    uint32_t bits;
    if (used <= (uint32_t)1 << t->direct) return;
    for (uint64_t i = 0; i < count; i++) {
        token_of(t, token_fold(t, flat_load(data, width, i)), &bits);
        total += bits;
    }
    write_varint(w, (total + 7) / 8);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t z = token_fold(t, flat_load(data, width, i));
        token_of(t, z, &bits);
        write_bits(w, z & (((uint64_t)1 << bits) - 1), bits);
    }
    write_rest(w);
}

static int raw_section(Reader *r, Reader *bits) {
    uint64_t size = read_varint(r);
    if (r->bad || size > (uint64_t)(r->end - r->at)) return 0;
    bits->at = r->at;
    bits->end = r->at += size;
    return 1;
}

/* Turn the tokens in `data` into symbols. */
static int raw_read(Reader *bits, const Tokens *t, void *data, int width, uint64_t count) {
    int plain = width < 0 ? width : -width;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t z;
        uint32_t extra = token_base(t, (uint32_t)flat_load(data, plain, i), &z);
        if (extra) z |= read_bits(bits, extra);
        int64_t symbol = token_unfold(t, z);
        if (bits->bad || !width_holds(width, symbol)) return 0;
        flat_store(data, width, i, (uint32_t)symbol);
    }
    return bits->at == bits->end;
}

/* ---- 4. interleaved static rANS -------------------------------------------------------------- */

#define MAX_TABLE_BITS 14
#define LANES 4

typedef struct {
    uint16_t frequency, offset;
    uint32_t value; /* the symbol, or its token where some tokens carry raw bits */
} Slot;

typedef struct {
    uint16_t numbers[MAX_TOKENS];
    uint16_t starts[MAX_TOKENS];
    Slot slots[(size_t)1 << MAX_TABLE_BITS];
} RansWork;

PENJING_API int64_t penjing_rans_work(void) { return sizeof(RansWork); }

/* `settings`: base, fold, direct, table bits, lanes (1 or 4), tokens; `frequencies` sum to 1 << table bits. */
PENJING_API int64_t penjing_rans_encode(const void *tables, const void *data, int width, uint64_t count,
                                        const int64_t *settings, const uint16_t *frequencies, void *work,
                                        uint64_t work_size, uint8_t *out, uint64_t capacity) {
    Tokens tokens = {settings[0], (uint32_t)settings[1], (uint32_t)settings[2]};
    uint32_t table_bits = (uint32_t)settings[3], lanes = (uint32_t)settings[4], used = (uint32_t)settings[5];
    RansWork *w = work;
    Writer writer = {out, 0, capacity, 0, 0, 0};
    if (!width_valid(width) || used > MAX_TOKENS || used < 1) return PENJING_ARGUMENT;
    if (work_size < sizeof *w || (uintptr_t)work % 8) return PENJING_SPACE;
    tokens_write(&writer, &tokens, used, (table_bits - 11) << 1 | (lanes > 1));
    table_write(&writer, w->numbers, frequencies, used, tables);
    raw_write(&writer, &tokens, used, data, width, count);
    uint32_t start = 0, state[LANES];
    for (uint32_t t = 0; t < used; t++) {
        w->starts[t] = (uint16_t)start;
        start += frequencies[t];
    }
    if (start != (uint32_t)1 << table_bits || writer.bad) return writer.bad ? PENJING_SPACE : PENJING_ARGUMENT;
    for (uint32_t j = 0; j < LANES; j++) state[j] = 65536;
    uint64_t top = capacity; /* words are written backwards from the end, then moved */
    for (uint64_t i = count; i-- > 0;) {
        uint32_t raw, token = token_of(&tokens, token_fold(&tokens, flat_load(data, width, i)), &raw);
        uint32_t lane = (uint32_t)(i & (lanes - 1)), x = state[lane];
        if (token >= used || frequencies[token] == 0) return PENJING_ARGUMENT;
        uint32_t f = frequencies[token];
        if (x >= (uint64_t)f << (32 - table_bits)) {
            if (top - writer.size < 2) return PENJING_SPACE;
            out[--top] = (uint8_t)(x >> 8);
            out[--top] = (uint8_t)x;
            x >>= 16;
        }
        state[lane] = ((x / f) << table_bits) + x % f + w->starts[token];
    }
    if (top - writer.size < 4 * lanes) return PENJING_SPACE;
    for (uint32_t j = lanes; j-- > 0;) {
        for (int shift = 24; shift >= 0; shift -= 8) out[--top] = (uint8_t)(state[j] >> shift);
    }
    while (top < capacity) out[writer.size++] = out[top++];
    return (int64_t)writer.size;
}

INLINE uint32_t load_word(const uint8_t *p) { return (uint32_t)p[0] | (uint32_t)p[1] << 8; }

/* Four lanes while four words are surely there, then one symbol at a time. */
INLINE int rans_run(const Slot *slots, uint32_t table_bits, uint32_t lanes, const uint8_t *at, const uint8_t *end,
                    void *data, int width, uint64_t count) {
    uint32_t state[LANES] = {0}, mask = ((uint32_t)1 << table_bits) - 1;
    uint64_t i = 0;
    if ((uint64_t)(end - at) < 4 * lanes) return 0;
    for (uint32_t j = 0; j < lanes; j++, at += 4) state[j] = load_word(at) | load_word(at + 2) << 16;
    if (lanes == LANES) {
        for (; i + LANES <= count && end - at >= 2 * LANES; i += LANES) {
            for (uint32_t j = 0; j < LANES; j++) {
                uint32_t x = state[j];
                const Slot *slot = &slots[x & mask];
                x = slot->frequency * (x >> table_bits) + slot->offset;
                flat_store(data, width, i + j, slot->value);
                uint32_t refill = x << 16 | load_word(at);
                at += x < 65536 ? 2 : 0;
                state[j] = x < 65536 ? refill : x;
            }
        }
    }
    for (; i < count; i++) {
        uint32_t *x = &state[i & (lanes - 1)];
        const Slot *slot = &slots[*x & mask];
        flat_store(data, width, i, slot->value);
        *x = slot->frequency * (*x >> table_bits) + slot->offset;
        if (*x < 65536) {
            if (end - at < 2) return 0;
            *x = *x << 16 | load_word(at);
            at += 2;
        }
    }
    int good = at == end;
    for (uint32_t j = 0; j < lanes; j++) good &= state[j] == 65536;
    return good;
}

PENJING_API int64_t penjing_rans_decode(const void *tables, const uint8_t *in, uint64_t in_size, void *data,
                                        int width, uint64_t count, void *work, uint64_t work_size) {
    RansWork *w = work;
    Reader reader = {in, in + in_size, 0, 0, 0};
    Tokens tokens;
    uint32_t used, extra, total = 0;
    if (!width_valid(width)) return PENJING_ARGUMENT;
    if (work_size < sizeof *w || (uintptr_t)work % 8) return PENJING_SPACE;
    if (!tokens_read(&reader, &tokens, &used, &extra)) return PENJING_DAMAGED;
    uint32_t table_bits = 11 + (extra >> 1), lanes = extra & 1 ? LANES : 1;
    if (!table_read(&reader, w->numbers, used, tables)) return PENJING_DAMAGED;
    int raw = used > (uint32_t)1 << tokens.direct;
    if (raw && (width == 1 || width == -1)) return PENJING_DAMAGED;
    for (uint32_t t = 0; t < used; t++) {
        uint32_t f = w->numbers[t];
        int64_t symbol = token_unfold(&tokens, t);
        if (f > ((uint32_t)1 << table_bits) - total) return PENJING_DAMAGED;
        if (f && !raw && !width_holds(width, symbol)) return PENJING_DAMAGED;
        for (uint32_t k = 0; k < f; k++) {
            w->slots[total++] = (Slot){(uint16_t)f, (uint16_t)k, raw ? t : (uint32_t)symbol};
        }
    }
    if (total != (uint32_t)1 << table_bits) return PENJING_DAMAGED;
    Reader bits = {reader.at, reader.at, 0, 0, 0};
    if (raw && !raw_section(&reader, &bits)) return PENJING_DAMAGED;
    int good;
    switch (width < 0 ? -width : width) {
    case 1: good = rans_run(w->slots, table_bits, lanes, reader.at, reader.end, data, 1, count); break;
    case 2: good = rans_run(w->slots, table_bits, lanes, reader.at, reader.end, data, 2, count); break;
    default: good = rans_run(w->slots, table_bits, lanes, reader.at, reader.end, data, 4, count);
    }
    if (good && raw) good = raw_read(&bits, &tokens, data, width, count);
    return good ? 0 : PENJING_DAMAGED;
}

/* ---- 5. canonical Huffman -------------------------------------------------------------------- */

#define MAX_LENGTH 12

typedef struct {
    uint32_t value; /* as in a Slot */
    uint32_t length;
} Leaf;

typedef struct {
    uint16_t numbers[MAX_TOKENS];
    uint16_t codes[MAX_TOKENS];
    Leaf leaves[1 << MAX_LENGTH];
} HuffmanWork;

PENJING_API int64_t penjing_huffman_work(void) { return sizeof(HuffmanWork); }

/* Give each token its canonical code, first bit lowest; the lengths must fill the code space, or be one 1. */
static int codes_make(uint16_t *codes, const uint16_t *lengths, uint32_t used) {
    uint32_t next = 0, ones = 0;
    for (uint32_t length = 1; length <= MAX_LENGTH; length++) {
        next <<= 1;
        for (uint32_t t = 0; t < used; t++) {
            if (lengths[t] != length) continue;
            uint32_t code = 0;
            for (uint32_t i = 0; i < length; i++) code |= ((next >> i) & 1) << (length - 1 - i);
            codes[t] = (uint16_t)code;
            if (++next > (uint32_t)1 << length) return 0;
            ones += length;
        }
    }
    for (uint32_t t = 0; t < used; t++) {
        if (lengths[t] > MAX_LENGTH) return 0;
    }
    return next == 1 << MAX_LENGTH || ones == 1;
}

/* `settings`: base, fold, direct, tokens; `lengths` of their codes, 0 for a token that is not there. */
PENJING_API int64_t penjing_huffman_encode(const void *tables, const void *data, int width, uint64_t count,
                                           const int64_t *settings, const uint16_t *lengths, void *work,
                                           uint64_t work_size, uint8_t *out, uint64_t capacity) {
    Tokens tokens = {settings[0], (uint32_t)settings[1], (uint32_t)settings[2]};
    uint32_t used = (uint32_t)settings[3];
    HuffmanWork *w = work;
    Writer writer = {out, 0, capacity, 0, 0, 0};
    if (!width_valid(width) || used > MAX_TOKENS || used < 1) return PENJING_ARGUMENT;
    if (work_size < sizeof *w || (uintptr_t)work % 8) return PENJING_SPACE;
    if (!codes_make(w->codes, lengths, used)) return PENJING_ARGUMENT;
    tokens_write(&writer, &tokens, used, 0);
    table_write(&writer, w->numbers, lengths, used, tables);
    raw_write(&writer, &tokens, used, data, width, count);
    for (uint64_t i = 0; i < count; i++) {
        uint32_t raw, token = token_of(&tokens, token_fold(&tokens, flat_load(data, width, i)), &raw);
        if (token >= used || lengths[token] == 0) return PENJING_ARGUMENT;
        write_bits(&writer, w->codes[token], lengths[token]);
    }
    write_rest(&writer);
    return writer.bad ? PENJING_SPACE : (int64_t)writer.size;
}

INLINE int huffman_run(const Leaf *leaves, const uint8_t *at, const uint8_t *end, void *data, int width,
                       uint64_t count) {
    uint64_t bits = 0, i = 0;
    uint32_t held = 0;
    while (i < count) {
        while (held <= 56 && at < end) bits |= (uint64_t)*at++ << held, held += 8;
        uint64_t batch = held / MAX_LENGTH; /* so many are surely there */
        if (batch == 0) batch = 1;
        if (batch > count - i) batch = count - i;
        for (uint64_t last = i + batch; i < last; i++) {
            const Leaf *leaf = &leaves[bits & ((1 << MAX_LENGTH) - 1)];
            if (leaf->length > held) return 0;
            flat_store(data, width, i, leaf->value);
            bits >>= leaf->length;
            held -= leaf->length;
        }
    }
    return at == end && held < 8 && bits == 0;
}

PENJING_API int64_t penjing_huffman_decode(const void *tables, const uint8_t *in, uint64_t in_size, void *data,
                                           int width, uint64_t count, void *work, uint64_t work_size) {
    HuffmanWork *w = work;
    Reader reader = {in, in + in_size, 0, 0, 0};
    Tokens tokens;
    uint32_t used, extra;
    if (!width_valid(width)) return PENJING_ARGUMENT;
    if (work_size < sizeof *w || (uintptr_t)work % 8) return PENJING_SPACE;
    if (!tokens_read(&reader, &tokens, &used, &extra) || extra) return PENJING_DAMAGED;
    if (!table_read(&reader, w->numbers, used, tables)) return PENJING_DAMAGED;
    if (!codes_make(w->codes, w->numbers, used)) return PENJING_DAMAGED;
    int raw = used > (uint32_t)1 << tokens.direct;
    if (raw && (width == 1 || width == -1)) return PENJING_DAMAGED;
    for (uint32_t i = 0; i < 1 << MAX_LENGTH; i++) w->leaves[i] = (Leaf){0, 64};
    for (uint32_t t = 0; t < used; t++) {
        uint32_t length = w->numbers[t];
        int64_t symbol = token_unfold(&tokens, t);
        if (length == 0) continue;
        if (!raw && !width_holds(width, symbol)) return PENJING_DAMAGED;
        for (uint32_t i = w->codes[t]; i < 1 << MAX_LENGTH; i += (uint32_t)1 << length) {
            w->leaves[i] = (Leaf){raw ? t : (uint32_t)symbol, length};
        }
    }
    Reader bits = {reader.at, reader.at, 0, 0, 0};
    if (raw && !raw_section(&reader, &bits)) return PENJING_DAMAGED;
    int good;
    switch (width < 0 ? -width : width) {
    case 1: good = huffman_run(w->leaves, reader.at, reader.end, data, 1, count); break;
    case 2: good = huffman_run(w->leaves, reader.at, reader.end, data, 2, count); break;
    default: good = huffman_run(w->leaves, reader.at, reader.end, data, 4, count);
    }
    if (good && raw) good = raw_read(&bits, &tokens, data, width, count);
    return good ? 0 : PENJING_DAMAGED;
}
