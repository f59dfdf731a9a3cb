/* penjing's entropy coders: freestanding C99, no allocation, no library calls.
 *
 * Every pointer comes with a size, every size is checked, and the work done by a decoder is bounded by
 * the count its caller declares.  All arithmetic is on fixed-width integers, so the bytes are the same
 * on every platform.  Functions return a byte count, or one of the negative codes below. */
#ifndef PENJING_CODER_H
#define PENJING_CODER_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define PENJING_API __declspec(dllexport)
#elif defined(__GNUC__)
#define PENJING_API __attribute__((visibility("default")))
#else
#define PENJING_API
#endif

#define PENJING_DAMAGED (-1)  /* the bytes are not what an encoder writes */
#define PENJING_SPACE (-2)    /* an output or work buffer is too small */
#define PENJING_ARGUMENT (-3) /* the caller's own arguments do not fit together */

/* Constants that all functions below need: make them once, in memory that is kept. */
PENJING_API int64_t penjing_tables_size(void);
PENJING_API int64_t penjing_tables_make(void *memory);

/* Adaptive context coder.  `shape` is (out, in, y, x); `choice` is (scan, near, column, slow, fast, shift,
 * height, width, transposed); `work` is aligned to 8 bytes and as large as the _work functions say. */
PENJING_API int64_t penjing_context_work(const uint64_t *shape, const uint32_t *choice);
PENJING_API int64_t penjing_context_decode_work(const uint8_t *in, uint64_t in_size, const uint64_t *shape);
PENJING_API int64_t penjing_context_encode(const void *tables, const void *data, int width, const uint64_t *shape,
    const uint32_t *choice, void *work, uint64_t work_size, uint8_t *out,
    uint64_t capacity);
PENJING_API int64_t penjing_context_measure(const void *tables, const void *data, int width, const uint64_t *shape,
    const uint32_t *choice, void *work, uint64_t work_size);
PENJING_API int64_t penjing_context_decode(const void *tables, const uint8_t *in, uint64_t in_size, void *data,
    int width, const uint64_t *shape, void *work, uint64_t work_size);

/* Static coders.  `width` is the bytes per integer, negative for unsigned ones; `settings` are
 * (base, fold, direct, ..., tokens) and `frequencies` or `lengths` are one number per token. */
PENJING_API int64_t penjing_tokens_count(const void *data, int width, uint64_t count, int64_t base, uint32_t fold,
    uint32_t direct, uint64_t *counts);
PENJING_API int64_t penjing_rans_work(void);
PENJING_API int64_t penjing_rans_encode(const void *tables, const void *data, int width, uint64_t count,
    const int64_t *settings, const uint16_t *frequencies, void *work,
    uint64_t work_size, uint8_t *out, uint64_t capacity);
PENJING_API int64_t penjing_rans_decode(const void *tables, const uint8_t *in, uint64_t in_size, void *data,
    int width, uint64_t count, void *work, uint64_t work_size);
PENJING_API int64_t penjing_huffman_work(void);
PENJING_API int64_t penjing_huffman_encode(const void *tables, const void *data, int width, uint64_t count,
    const int64_t *settings, const uint16_t *lengths, void *work,
    uint64_t work_size, uint8_t *out, uint64_t capacity);
PENJING_API int64_t penjing_huffman_decode(const void *tables, const uint8_t *in, uint64_t in_size, void *data,
    int width, uint64_t count, void *work, uint64_t work_size);

#endif
