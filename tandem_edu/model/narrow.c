/* A few rows times a matrix, y = x W or y = x Eᵀ, and a few queries' attention, in float32 on a CPU. See
   narrow.py for why.

   Each entry is summed in an order of its own, which depends neither on how many rows come with it nor on
   how much room there is behind the keys. A row's result is therefore the same, bit for bit, read alone or
   with others. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "narrow_threads.h"
#include "xla/ffi/api/c_api.h"

#define LANES 8   /* floats of a vector */
#define GROUP 6   /* rows that share one pass over the matrix: more would not fit in registers */
#define BROAD 256 /* columns of y that one thread fills at a time, at most */
#define DEPTH 8   /* rows of W that are summed in registers */
#define AHEAD 16  /* rows of W that are fetched before they are needed */

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint8_t bytes __attribute__((vector_size(LANES)));
#define ALWAYS static inline __attribute__((always_inline)) void

/* The next floats, at most a vector of them; where there are fewer, zeros follow. */
static inline vec load(const float *from, int64_t left) {
  vec some = {0};
  if (left >= LANES) return *(const vec *)from;
  memcpy(&some, from, sizeof(float) * left);
  return some;
}

#ifdef __clang__
#define PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define PICK(a, b, ...) __builtin_shuffle(a, b, (ivec){__VA_ARGS__})
#endif
#define PAIRED(a, b) (PICK(a, b, 0, 8, 2, 10, 4, 12, 6, 14) + PICK(a, b, 1, 9, 3, 11, 5, 13, 7, 15))
#define FOURS(a, b) (PICK(a, b, 0, 1, 8, 9, 4, 5, 12, 13) + PICK(a, b, 2, 3, 10, 11, 6, 7, 14, 15))
#define HALVES(a, b) (PICK(a, b, 0, 1, 2, 3, 8, 9, 10, 11) + PICK(a, b, 4, 5, 6, 7, 12, 13, 14, 15))

/* Lane i: the sum of the lanes of v[i]. */
static inline vec lane_sums(const vec v[LANES]) {
  return HALVES(FOURS(PAIRED(v[0], v[1]), PAIRED(v[2], v[3])), FOURS(PAIRED(v[4], v[5]), PAIRED(v[6], v[7])));
}

/* Vectors side by side that so many rows leave room for in the registers: all sums, and one more each. */
#define ACROSS(rows) ((rows) == 1 ? 8 : (rows) <= 3 ? 4 : 2)

/* sum[rows, across vectors] += x[rows, depth] W[depth, across vectors]. */
ALWAYS tile(const int rows, const int across, const float *x, const float *w, float *sum, int64_t K, int64_t N,
            int64_t depth) {
  vec total[GROUP][ACROSS(1)];
  for (int r = 0; r < rows; r++)
    for (int j = 0; j < across; j++) total[r][j] = *(vec *)(sum + r * BROAD + j * LANES);
  for (int64_t d = 0; d < depth; d++, w += N) {
    vec column[ACROSS(1)];
    for (int j = 0; j < across; j++) {
      column[j] = *(const vec *)(w + j * LANES);
      if (j % 2 == 0) __builtin_prefetch(w + AHEAD * N + j * LANES);
    }
    for (int r = 0; r < rows; r++)
      for (int j = 0; j < across; j++) total[r][j] += x[r * K + d] * column[j];
  }
  for (int r = 0; r < rows; r++)
    for (int j = 0; j < across; j++) *(vec *)(sum + r * BROAD + j * LANES) = total[r][j];
}

/* y[rows, from .. to) = x W: W streams by once, DEPTH of its rows at a time. */
ALWAYS product(const int rows, const float *x, const float *w, float *y, int64_t K, int64_t N, int64_t from,
               int64_t to) {
  const int across = ACROSS(rows);
  float sum[GROUP * BROAD];
  memset(sum, 0, sizeof(float) * rows * BROAD);
  for (int64_t k = 0; k < K; k += DEPTH) {
    const int64_t depth = K - k < DEPTH ? K - k : DEPTH;
    int64_t n = from;
    for (; n + across * LANES <= to; n += across * LANES)
      tile(rows, across, x + k, w + k * N + n, sum + n - from, K, N, depth);
    for (; n < to; n += LANES) { /* the last columns go through a copy with room for a whole vector */
      float edge[DEPTH * LANES];
      for (int64_t d = 0; d < depth; d++) *(vec *)(edge + d * LANES) = load(w + (k + d) * N + n, to - n);
      tile(rows, 1, x + k, edge, sum + n - from, K, LANES, depth);
    }
  }
  for (int r = 0; r < rows; r++) memcpy(y + r * N + from, sum + r * BROAD, sizeof(float) * (to - from));
}

/* Lane by lane, the sums that x E[width]ᵀ is made of: `width` rows of E side by side. */
ALWAYS lanes_of(const int rows, const int width, const float *x, const float *e, vec *sum, int64_t K) {
  vec total[GROUP][LANES];
  for (int r = 0; r < rows; r++)
    for (int j = 0; j < width; j++) total[r][j] = (vec){0};
  for (int64_t k = 0; k < K; k += LANES)
    for (int j = 0; j < width; j++) {
      vec part = load(e + j * K + k, K - k);
      __builtin_prefetch(e + (j + width) * K + k);
      for (int r = 0; r < rows; r++) total[r][j] += load(x + r * K + k, K - k) * part;
    }
  for (int r = 0; r < rows; r++)
    for (int j = 0; j < width; j++) sum[r * LANES + j] = total[r][j];
}

/* y[rows, from .. to) = x Eᵀ: E streams by once. */
ALWAYS transposed(const int rows, const float *x, const float *e, float *y, int64_t K, int64_t N, int64_t from,
                  int64_t to) {
  const int across = ACROSS(rows);
  for (int64_t n = from; n < to; n += LANES) {
    const int64_t count = to - n < LANES ? to - n : LANES;
    vec sum[GROUP][LANES] = {0};
    int64_t j = 0;
    for (; j + across <= count; j += across) lanes_of(rows, across, x, e + (n + j) * K, sum[0] + j, K);
    for (; j < count; j++) lanes_of(rows, 1, x, e + (n + j) * K, sum[0] + j, K);
    for (int r = 0; r < rows; r++) {
      const vec totals = lane_sums(sum[r]);
      memcpy(y + r * N + n, &totals, sizeof(float) * count);
    }
  }
}

typedef struct {
  const float *x, *matrix;
  float *y;
  int64_t M, K, N, strip; /* so many columns a strip */
} Product;

/* One strip of the columns, the rows in groups, each with a loop of its own that the compiler unrolls. */
#define CASE(kind, rows) case rows: kind(rows, x, p->matrix, y, p->K, p->N, from, to); break
#define STRIP_OF(kind)                                                                       \
  static void kind##_strip(const void *what, int strip) {                                    \
    const Product *p = what;                                                                 \
    const int64_t from = strip * p->strip, end = from + p->strip;                            \
    const int64_t to = end < p->N ? end : p->N;                                              \
    const float *x = p->x;                                                                   \
    float *y = p->y;                                                                         \
    for (int64_t rows = p->M; rows > 0; rows -= GROUP, x += GROUP * p->K, y += GROUP * p->N) \
      switch (rows < GROUP ? rows : GROUP) {                                                 \
        CASE(kind, 1); CASE(kind, 2); CASE(kind, 3);                                         \
        CASE(kind, 4); CASE(kind, 5); CASE(kind, 6);                                         \
      }                                                                                      \
  }
STRIP_OF(product)
STRIP_OF(transposed)

static inline vec choose(ivec which, vec yes, vec no) { return (vec)((which & (ivec)yes) | (~which & (ivec)no)); }

/* e^x for x ≤ 0, in 2 units of the last place; 0 below e^-87. */
static inline vec exponential(vec x) {
  x = choose(x < -87.0f, (vec){0} - 87.5f, x);
  vec whole = (x * 1.44269504f + 12582912.0f) - 12582912.0f; /* 1.5 · 2^23: adding it rounds */
  vec rest = x - whole * 0.693359375f + whole * 2.12194440e-4f; /* ln 2 in two parts */
  vec series = (vec){0} + 1.0f / 720;
  series = series * rest + 1.0f / 120;
  series = series * rest + 1.0f / 24;
  series = series * rest + 1.0f / 6;
  series = series * rest + 0.5f;
  series = series * rest * rest + rest + 1.0f;
  ivec power = (__builtin_convertvector(whole, ivec) + 127) << 23;
  return choose(x > -87.25f, series * (vec)power, (vec){0});
}

#define CHUNK 64              /* keys that are looked at together */
#define PARTS (CHUNK / LANES) /* their vectors */
#define WIDE 4                /* vectors of a value that are summed side by side */

/* What a query has gathered: the top score, Σ e^(score - top) and Σ e^(score - top) · value. */
typedef struct {
  float top, total, *mixed;
} Gathered;

/* The scores of one query with a chunk of keys[count, D]; -∞ where `mask` hides a key. D is whole vectors. */
static inline void score_chunk(vec *score, const float *query, const float *keys, const uint8_t *mask,
                               int64_t count, int64_t D) {
  for (int part = 0; part < PARTS; part++, keys += LANES * D, mask += LANES) {
    const int64_t left = count - part * LANES;
    float padded[LANES * D];
    bytes seen = {0};
    vec sum[LANES] = {0};
    if (left < LANES) { /* none is read that is not there */
      memset(padded, 0, sizeof padded);
      if (left > 0) memcpy(padded, keys, sizeof(float) * left * D);
    }
    if (left > 0) memcpy(&seen, mask, left < LANES ? left : LANES);
    const float *k = left < LANES ? padded : keys;
    for (int64_t d = 0; d < D; d += LANES)
      for (int i = 0; i < LANES; i++) sum[i] += *(const vec *)(query + d) * *(const vec *)(k + i * D + d);
    score[part] = choose(__builtin_convertvector(seen, ivec) != 0, lane_sums(sum), (vec){0} - INFINITY);
  }
}

/* mixed = fade · mixed + Σ_t weight[t] values[t], for `wide` vectors of them. */
ALWAYS mix(const int wide, float *mixed, vec fade, const float *weight, const float *values, int64_t count,
           int64_t D) {
  vec sum[WIDE];
  for (int j = 0; j < wide; j++) sum[j] = fade * *(vec *)(mixed + j * LANES);
  for (int64_t t = 0; t < count; t++)
    for (int j = 0; j < wide; j++) sum[j] += weight[t] * *(const vec *)(values + t * D + j * LANES);
  for (int j = 0; j < wide; j++) *(vec *)(mixed + j * LANES) = sum[j];
}

/* One query over one chunk of keys and values: the softmax as far as it is known, as in arXiv:2205.14135. */
static void gather(Gathered *so_far, const float *query, const float *keys, const float *values,
                   const uint8_t *mask, int64_t count, int64_t D) {
  vec weight[PARTS], most, sum = {0}, fade;
  float top = so_far->top;
  score_chunk(weight, query, keys, mask, count, D);
  most = weight[0];
  for (int part = 1; part < PARTS; part++) most = choose(weight[part] > most, weight[part], most);
  for (int lane = 0; lane < LANES; lane++) top = most[lane] > top ? most[lane] : top;
  if (top == -INFINITY) return; /* it has seen no key so far */

  fade = exponential((vec){0} + (so_far->top - top));
  for (int part = 0; part < PARTS; part++) sum += weight[part] = exponential(weight[part] - top);
  so_far->top = top;
  so_far->total *= fade[0];
  for (int lane = 0; lane < LANES; lane++) so_far->total += sum[lane];
  int64_t d = 0;
  for (; d + WIDE * LANES <= D; d += WIDE * LANES)
    mix(WIDE, so_far->mixed + d, fade, (const float *)weight, values + d, count, D);
  for (; d < D; d += LANES) mix(1, so_far->mixed + d, fade, (const float *)weight, values + d, count, D);
}

/* Whether any of the queries sees any key of a chunk. */
static int any_seen(const uint8_t *mask, int64_t Q, int64_t T, int64_t count) {
  for (int64_t i = 0; i < Q; i++)
    if (memchr(mask + i * T, 1, count)) return 1;
  return 0;
}

/* XLA asks a handler for its version before it calls it. */
static int told_version(XLA_FFI_CallFrame *frame) {
  __auto_type extension = frame->extension_start; /* jaxlib 0.12 calls its type by another name */
  if (extension == NULL || extension->type != XLA_FFI_Extension_Metadata) return 0;
  XLA_FFI_Metadata *metadata = ((XLA_FFI_Metadata_Extension *)extension)->metadata;
  metadata->api_version.major_version = XLA_FFI_API_MAJOR;
  metadata->api_version.minor_version = XLA_FFI_API_MINOR;
  metadata->traits = 0;
  return 1;
}

/* x[M, K] times the matrix is y[M, N]. */
static void multiply(XLA_FFI_CallFrame *frame, Turn strip) {
  const XLA_FFI_Buffer *x = frame->args.args[0], *w = frame->args.args[1], *y = frame->rets.rets[0];
  Product p = {x->data, w->data, y->data, x->dims[0], x->dims[1], y->dims[1]};
  p.strip = p.N < 4 * BROAD ? BROAD / 2 : BROAD; /* enough of them to share, as broad as may be */
  share(strip, &p, (p.N + p.strip - 1) / p.strip);
}

XLA_FFI_Error *narrow(XLA_FFI_CallFrame *frame) {
  if (told_version(frame)) return NULL;
  multiply(frame, product_strip);
  return NULL;
}

XLA_FFI_Error *narrow_transposed(XLA_FFI_CallFrame *frame) {
  if (told_version(frame)) return NULL;
  multiply(frame, transposed_strip);
  return NULL;
}

/* The queries that read the keys and values of head `g`, of all texts' heads one after the other. */
static void attend_head(const void *what, int g) {
  const XLA_FFI_CallFrame *frame = what;
  XLA_FFI_Buffer **given = (XLA_FFI_Buffer **)frame->args.args, *made = frame->rets.rets[0];
  const int64_t H = given[0]->dims[0], Q = given[0]->dims[1], D = given[0]->dims[2];
  const int64_t rows = H / given[1]->dims[0] * Q; /* that read the same keys */
  const int64_t text = g / (given[1]->dims[0] / given[3]->dims[0]);
  const float *queries = (float *)given[0]->data + g * rows * D;
  float *out = (float *)made->data + g * rows * D;
  Gathered so_far[rows];
  memset(out, 0, sizeof(float) * rows * D);
  for (int64_t r = 0; r < rows; r++) so_far[r] = (Gathered){-INFINITY, 0, out + r * D};
  for (int64_t side = 1; side < frame->args.size; side += 3) {
    const int64_t T = given[side]->dims[1];
    const float *k = (float *)given[side]->data + g * T * D, *v = (float *)given[side + 1]->data + g * T * D;
    for (int64_t start = 0; start < T; start += CHUNK) {
      const int64_t count = T - start < CHUNK ? T - start : CHUNK;
      const uint8_t *mask = (uint8_t *)given[side + 2]->data + text * Q * T + start;
      if (!any_seen(mask, Q, T, count)) continue;
      for (int64_t r = 0; r < rows; r++)
        gather(so_far + r, queries + r * D, k + start * D, v + start * D, mask + r % Q * T, count, D);
    }
  }
  for (int64_t r = 0; r < rows; r++)
    for (int64_t d = 0; d < D; d++) so_far[r].mixed[d] /= so_far[r].total;
}

/* softmax(q kᵀ) v over one or more sides of keys and values, for B texts. Arguments: q[B · H, Q, D], then for
   each side k[B · G, T, D], v[B · G, T, D] and mask[B, Q, T]; the result is [B · H, Q, D]. */
XLA_FFI_Error *narrow_attention(XLA_FFI_CallFrame *frame) {
  if (told_version(frame)) return NULL;
  share(attend_head, frame, ((XLA_FFI_Buffer *)frame->args.args[1])->dims[0]);
  return NULL;
}
