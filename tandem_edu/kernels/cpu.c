/* A few rows times a matrix, y = x W or y = x Eᵀ, and a few queries' attention, in float32 on a CPU. See
   cpu.py for the reason.

   Each entry is summed in an order of its own, which depends neither on how many rows come with it nor on
   the number of unused slots after the keys. A row's result is therefore the same, bit for bit, read alone or
   with others. */

#include "threads.h"
#include "vectors.h"
#include "xla/ffi/api/c_api.h"

#define SUMS (REGISTERS * 3 / 4) /* vectors that a loop sums in registers */
#define GROUP (SUMS / 2)         /* rows that share one pass over the matrix */
#define BROAD 256                /* columns of y that one thread fills at a time, at most */
#define DEPTH 8                  /* rows of W that are summed in registers */
#define AHEAD 16                 /* rows of W that are fetched before they are needed */
#define LINE 16                  /* floats that are fetched together */

/* Vectors side by side that fit into the registers beside this many rows. */
#define ACROSS(rows) ((rows) * 8 <= SUMS ? 8 : (rows) * 4 <= SUMS ? 4 : 2)

/* Calls what(rows), at most what(GROUP), with the number as a constant: the compiler unrolls its loops. */
#define CASE(n, what) \
  case n: what(n); break;
#if SUMS == 24
#define MORE(what) CASE(7, what) CASE(8, what) CASE(9, what) CASE(10, what) CASE(11, what) CASE(12, what)
#elif SUMS == 12
#define MORE(what)
#else
#error "a case for each number of rows up to GROUP"
#endif
#define FOR_ROWS(rows, what)                                                                            \
  switch ((rows) < GROUP ? (rows) : GROUP) {                                                            \
    CASE(1, what) CASE(2, what) CASE(3, what) CASE(4, what) CASE(5, what) CASE(6, what) MORE(what) \
  }

/* sum[rows, across vectors] += x[rows, depth] W[depth, across vectors]; S lies between two rows of sums. */
ALWAYS tile(const int rows, const int across, const float *x, const float *w, float *sum, int64_t K, int64_t N,
            int64_t S, int64_t depth) {
  vec total[GROUP][ACROSS(1)];
  for (int r = 0; r < rows; r++)
    for (int j = 0; j < across; j++) total[r][j] = *(vec *)(sum + r * S + j * LANES);
  for (int64_t d = 0; d < depth; d++, w += N) {
    vec column[ACROSS(1)];
    for (int j = 0; j < across; j++) {
      column[j] = *(const vec *)(w + j * LANES);
      if (j * LANES % LINE == 0) __builtin_prefetch(w + AHEAD * N + j * LANES);
    }
    for (int r = 0; r < rows; r++)
      for (int j = 0; j < across; j++) total[r][j] += x[r * K + d] * column[j];
  }
  for (int r = 0; r < rows; r++)
    for (int j = 0; j < across; j++) *(vec *)(sum + r * S + j * LANES) = total[r][j];
}

/* The same for any number of whole vectors of columns: as many side by side as fit, then fewer. */
#define SIDE_BY_SIDE(n)                                    \
  if (n <= ACROSS(rows))                                   \
    for (; column + n * LANES <= columns; column += n * LANES) \
      tile(rows, n, x, w + column, sum + column, K, N, S, depth);
ALWAYS tiles(const int rows, const float *x, const float *w, float *sum, int64_t K, int64_t N, int64_t S,
             int64_t depth, int64_t columns) {
  int64_t column = 0;
  SIDE_BY_SIDE(8) SIDE_BY_SIDE(4) SIDE_BY_SIDE(2) SIDE_BY_SIDE(1)
}

/* y[rows, from .. to) = x W: W streams by once, DEPTH of its rows at a time. */
ALWAYS product(const int rows, const float *x, const float *w, float *y, int64_t K, int64_t N, int64_t from,
               int64_t to) {
  const int64_t columns = (to - from) / LANES * LANES, rest = to - from - columns;
  float WHOLE_LINES sum[GROUP * BROAD];
  memset(sum, 0, sizeof(float) * rows * BROAD);
  for (int64_t k = 0; k < K; k += DEPTH) {
    const int64_t depth = K - k < DEPTH ? K - k : DEPTH;
    const float *part = w + k * N + from;
    tiles(rows, x + k, part, sum, K, N, BROAD, depth, columns);
    if (rest) { /* the last columns go through a copy padded to a whole vector */
      float WHOLE_LINES edge[DEPTH * LANES];
      for (int64_t d = 0; d < depth; d++) *(vec *)(edge + d * LANES) = load(part + d * N + columns, rest);
      tile(rows, 1, x + k, edge, sum + columns, K, LANES, BROAD, depth);
    }
  }
  for (int r = 0; r < rows; r++) memcpy(y + r * N + from, sum + r * BROAD, sizeof(float) * (to - from));
}

/* Lane by lane, the sums that x E[width]ᵀ is made of: `width` rows of E source by source. */
ALWAYS lanes_of(const int rows, const int width, const float *x, const float *e, vec *sum, int64_t K) {
  vec total[GROUP][ACROSS(1)];
  for (int r = 0; r < rows; r++)
    for (int j = 0; j < width; j++) total[r][j] = (vec){0};
  int64_t k = 0;
  for (; k + LANES <= K; k += LANES)
    for (int j = 0; j < width; j++) {
      const vec part = *(const vec *)(e + j * K + k);
      __builtin_prefetch(e + (j + width) * K + k);
      for (int r = 0; r < rows; r++) total[r][j] += *(const vec *)(x + r * K + k) * part;
    }
  if (k < K)
    for (int j = 0; j < width; j++) {
      const vec part = load(e + j * K + k, K - k);
      for (int r = 0; r < rows; r++) total[r][j] += load(x + r * K + k, K - k) * part;
    }
  for (int r = 0; r < rows; r++)
    for (int j = 0; j < width; j++) sum[r * LANES + j] = total[r][j];
}

/* y[rows, from .. to) = x Eᵀ: E streams by once. */
ALWAYS transposed(const int rows, const float *x, const float *e, float *y, int64_t K, int64_t N, int64_t from,
                  int64_t to) {
  const int across = ACROSS(rows);
  vec WHOLE_LINES sum[GROUP][LANES];
  for (int64_t n = from; n < to; n += LANES) {
    const int64_t count = to - n < LANES ? to - n : LANES;
    int64_t j = 0;
    if (count == LANES)
      for (; j < LANES; j += across) lanes_of(rows, across, x, e + (n + j) * K, sum[0] + j, K);
    for (; j < count; j++) lanes_of(rows, 1, x, e + (n + j) * K, sum[0] + j, K);
    for (int r = 0; r < rows; r++) {
      const vec totals = lane_sums(sum[r]);
      if (count == LANES) *(vec *)(y + r * N + n) = totals;
      else memcpy(y + r * N + n, &totals, sizeof(float) * count);
    }
  }
}

typedef struct {
  const float *x, *matrix;
  float *y;
  int64_t M, K, N, strip; /* columns per strip */
} Product;

/* One strip of the columns, the rows in groups. */
#define PRODUCT(n) product(n, x, p->matrix, y, p->K, p->N, from, to)
#define TRANSPOSED(n) transposed(n, x, p->matrix, y, p->K, p->N, from, to)
#define STRIP_OF(kind, what)                                                                 \
  static void kind##_strip(const void *arguments, int strip) {                                   \
    const Product *p = arguments;                                                                \
    const int64_t from = strip * p->strip, end = from + p->strip;                            \
    const int64_t to = end < p->N ? end : p->N;                                              \
    const float *x = p->x;                                                                   \
    float *y = p->y;                                                                         \
    for (int64_t rows = p->M; rows > 0; rows -= GROUP, x += GROUP * p->K, y += GROUP * p->N) \
      FOR_ROWS(rows, what)                                                                   \
  }
STRIP_OF(product, PRODUCT)
STRIP_OF(transposed, TRANSPOSED)

#define CHUNK 64              /* keys that are scored together */
#define PARTS (CHUNK / LANES) /* their vectors */
#define MANY 8                /* queries from which on transposing the keys pays */

/* A query's softmax so far: the top score, and Σ e^(score - top) lane by lane. */
typedef struct {
  vec top, total;
} Gathered;

/* The next of the mask's words, at most a vector of them. */
static inline ivec next_seen(const int32_t *mask, int64_t left) {
  ivec seen = {0};
  if (left >= LANES) return *(const ivec *)mask;
  if (left > 0) memcpy(&seen, mask, sizeof(int32_t) * left);
  return seen;
}

/* Turns the scores of one query into weights; rescales its softmax so far and mixed[D] to the new top. */
ALWAYS weigh(Gathered *so_far, vec *weight, float *mixed, const int32_t *mask, int64_t count, int64_t D) {
  vec top = so_far->top, sum = {0};
  for (int part = 0; part < PARTS; part++) {
    const ivec seen = next_seen(mask + part * LANES, count - part * LANES);
    weight[part] = choose(seen, weight[part], (vec){0} - INFINITY);
    top = larger(top, weight[part]);
  }
  top = largest_lane(top);
  const vec base = choose(top != -INFINITY, top, (vec){0}); /* it may have seen no key so far */
  const vec fade = exponential(so_far->top - base);
  for (int part = 0; part < PARTS; part++) sum += weight[part] = exponential(weight[part] - base);
  so_far->top = top;
  so_far->total = so_far->total * fade + sum;
  for (int64_t d = 0; d < D; d += LANES) *(vec *)(mixed + d) *= fade;
}

/* turned[D, CHUNK]: a chunk of keys[count, D], transposed. */
static void transpose_keys(const float *keys, float *turned, int64_t count, int64_t D) {
  for (int64_t t = 0; t < count; t += LANES)
    for (int64_t d = 0; d < D; d += LANES) {
      vec square[LANES] = {0};
      for (int i = 0; i < LANES && t + i < count; i++) square[i] = *(const vec *)(keys + (t + i) * D + d);
      transpose_square(square);
      for (int i = 0; i < LANES; i++) *(vec *)(turned + (d + i) * CHUNK + t) = square[i];
    }
}

/* The scores of one query with transposed keys: the same sums as `transposed`, in the same order, with less work. */
static inline void score(vec *scores, const float *query, const float *turned, int64_t count, int64_t D) {
  for (int64_t t = 0; t < count; t += LANES) {
    vec sum[LANES] = {0};
    for (int64_t d = 0; d < D; d += LANES)
      for (int i = 0; i < LANES; i++) sum[i] += query[d + i] * *(const vec *)(turned + (d + i) * CHUNK + t);
    scores[t / LANES] = sum_of(sum);
  }
}

/* A chunk of the keys and values that some queries read. */
typedef struct {
  const float *keys, *turned, *values; /* `turned` only where there are many queries */
  int64_t count, D;
} Chunk;

/* A few queries and one chunk: the softmax as far as it is known, as in arXiv:2205.14135. mixed[rows, D] is
   Σ e^(score - top) · value. */
ALWAYS gather(const int rows, Gathered *so_far, float *mixed, const float *query, const int32_t **mask,
              const Chunk *chunk) {
  const int64_t D = chunk->D, count = chunk->count;
  vec WHOLE_LINES weight[GROUP][PARTS];
  if (chunk->turned)
    for (int r = 0; r < rows; r++) score(weight[r], query + r * D, chunk->turned, count, D);
  else
    transposed(rows, query, chunk->keys, (float *)weight, D, CHUNK, 0, count);
  for (int r = 0; r < rows; r++) weigh(so_far + r, weight[r], mixed + r * D, mask[r], count, D);
  tiles(rows, (float *)weight, chunk->values, mixed, CHUNK, D, D, count, D);
}

/* Whether any of the queries sees any key of a chunk. */
static int any_seen(const int32_t *mask, int64_t Q, int64_t T, int64_t count) {
  for (int64_t i = 0; i < Q; i++)
    for (int64_t t = 0; t < count; t++)
      if (mask[i * T + t]) return 1;
  return 0;
}

/* XLA asks a handler for its version before it calls it. */
static int is_version_query(XLA_FFI_CallFrame *frame) {
  __auto_type extension = frame->extension_start; /* jaxlib 0.12 calls its type by another name */
  if (extension == NULL || extension->type != XLA_FFI_Extension_Metadata) return 0;
  XLA_FFI_Metadata *metadata = ((XLA_FFI_Metadata_Extension *)extension)->metadata;
  metadata->api_version.major_version = XLA_FFI_API_MAJOR;
  metadata->api_version.minor_version = XLA_FFI_API_MINOR;
  metadata->traits = 0;
  return 1;
}

/* x[M, K] times the matrix is y[M, N]. */
static void multiply(XLA_FFI_CallFrame *frame, Task strip) {
  const XLA_FFI_Buffer *x = frame->args.args[0], *w = frame->args.args[1], *y = frame->rets.rets[0];
  const int64_t N = y->dims[1], broad = N < 4 * BROAD ? BROAD / 2 : BROAD; /* enough to share, yet broad */
  const Product p = {x->data, w->data, y->data, x->dims[0], x->dims[1], N, broad};
  share(strip, &p, (N + broad - 1) / broad);
}

XLA_FFI_Error *tandem_matmul(XLA_FFI_CallFrame *frame) {
  if (is_version_query(frame)) return NULL;
  multiply(frame, product_strip);
  return NULL;
}

XLA_FFI_Error *tandem_matmul_transposed(XLA_FFI_CallFrame *frame) {
  if (is_version_query(frame)) return NULL;
  multiply(frame, transposed_strip);
  return NULL;
}

#define GATHER(n) gather(n, so_far + r, out + r * D, queries + r * D, masks, &chunk)

/* The queries that read the keys and values of head `g`, of all texts' heads one after the other. */
static void attend_head(const void *what, int g) {
  const XLA_FFI_CallFrame *frame = what;
  XLA_FFI_Buffer **args = (XLA_FFI_Buffer **)frame->args.args, *made = frame->rets.rets[0];
  const int64_t H = args[0]->dims[0], Q = args[0]->dims[1], D = args[0]->dims[2];
  const int64_t rows = H / args[1]->dims[0] * Q; /* that read the same keys */
  const int64_t text = g / (args[1]->dims[0] / args[3]->dims[0]);
  const float *queries = (float *)args[0]->data + g * rows * D;
  float *out = (float *)made->data + g * rows * D;
  float WHOLE_LINES turned[rows < MANY ? 1 : CHUNK * D];
  Gathered so_far[rows];
  memset(out, 0, sizeof(float) * rows * D);
  for (int64_t r = 0; r < rows; r++) so_far[r] = (Gathered){(vec){0} - INFINITY, {0}};
  for (int64_t source = 1; source < frame->args.size; source += 3) {
    const int64_t T = args[source]->dims[1];
    const float *k = (float *)args[source]->data + g * T * D, *v = (float *)args[source + 1]->data + g * T * D;
    for (int64_t start = 0; start < T; start += CHUNK) {
      const int64_t count = T - start < CHUNK ? T - start : CHUNK;
      const int32_t *mask = (int32_t *)args[source + 2]->data + text * Q * T + start, *masks[GROUP];
      if (!any_seen(mask, Q, T, count)) continue;
      const Chunk chunk = {k + start * D, rows < MANY ? NULL : turned, v + start * D, count, D};
      if (chunk.turned) transpose_keys(chunk.keys, turned, count, D);
      for (int64_t r = 0; r < rows; r += GROUP) {
        for (int i = 0; i < GROUP; i++) masks[i] = mask + (r + i) % Q * T;
        FOR_ROWS(rows - r, GATHER)
      }
    }
  }
  for (int64_t r = 0; r < rows; r++) {
    const vec total = sum_of_lanes(so_far[r].total);
    for (int64_t d = 0; d < D; d += LANES) *(vec *)(out + r * D + d) /= total;
  }
}

/* softmax(q kᵀ) v over one or more sources of keys and values, for B texts. Arguments: q[B · H, Q, D], then
   for each source k[B · G, T, D], v[B · G, T, D] and int32 mask[B, Q, T], where all bits are set of what is
   seen; D is whole vectors. The result is [B · H, Q, D]. */
XLA_FFI_Error *tandem_attention(XLA_FFI_CallFrame *frame) {
  if (is_version_query(frame)) return NULL;
  share(attend_head, frame, ((XLA_FFI_Buffer *)frame->args.args[1])->dims[0]);
  return NULL;
}
