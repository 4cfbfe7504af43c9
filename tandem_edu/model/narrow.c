/* A few rows times a matrix: y = x W, or y = x Eᵀ, in float32 on a CPU. See narrow.py for why.

   Each entry of y is summed in an order of its own that depends on the shape of the matrix alone. A row's
   result is therefore the same, bit for bit, however many rows come with it. */

#include <stdint.h>
#include <string.h>

#include "xla/ffi/api/c_api.h"

#define LANES 8   /* floats of a vector */
#define GROUP 6   /* rows that share one pass over the matrix: more would not fit in registers */
#define DEPTH 8   /* rows of W in one pass over y */
#define ABREAST 4 /* rows of E read side by side */

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4)));
#define ALWAYS static inline __attribute__((always_inline)) void

/* The next floats, at most a vector of them; where there are fewer, zeros follow. */
static inline vec load(const float *from, int64_t left) {
  vec some = {0};
  if (left >= LANES) return *(const vec *)from;
  memcpy(&some, from, sizeof(float) * left);
  return some;
}

static inline void store(float *to, vec some, int64_t left) {
  if (left >= LANES) *(vec *)to = some;
  else memcpy(to, &some, sizeof(float) * left);
}

/* y[rows, N] += x[rows, k .. k + depth) W[k .. k + depth, N], all of W's rows side by side. */
ALWAYS slab(const int rows, const int depth, const float *x, const float *w, float *y, int64_t K, int64_t N) {
  vec factor[GROUP][DEPTH];
  for (int r = 0; r < rows; r++)
    for (int d = 0; d < depth; d++) factor[r][d] = (vec){0} + x[r * K + d];
  for (int64_t n = 0; n < N; n += LANES) {
    vec column[DEPTH];
    for (int d = 0; d < depth; d++) {
      column[d] = load(w + d * N + n, N - n);
      __builtin_prefetch(w + (d + depth) * N + n); /* of the slab after this one */
    }
    for (int r = 0; r < rows; r++) {
      vec sum = load(y + r * N + n, N - n);
      for (int d = 0; d < depth; d++) sum += factor[r][d] * column[d];
      store(y + r * N + n, sum, N - n);
    }
  }
}

/* y = x W: W streams by once, y stays in the nearest cache. */
ALWAYS product(const int rows, const float *x, const float *w, float *y, int64_t K, int64_t N) {
  int64_t k = 0;
  memset(y, 0, sizeof(float) * rows * N);
  for (; k + DEPTH <= K; k += DEPTH) slab(rows, DEPTH, x + k, w + k * N, y, K, N);
  for (; k < K; k++) slab(rows, 1, x + k, w + k * N, y, K, N);
}

/* y[:, n .. n + width) = x E[n .. n + width)ᵀ. */
ALWAYS scores(const int rows, const int width, const float *x, const float *e, float *y, int64_t K, int64_t N) {
  vec sum[GROUP][ABREAST];
  memset(sum, 0, sizeof sum);
  for (int64_t k = 0; k < K; k += LANES)
    for (int j = 0; j < width; j++) {
      vec part = load(e + j * K + k, K - k);
      __builtin_prefetch(e + (j + width) * K + k);
      for (int r = 0; r < rows; r++) sum[r][j] += load(x + r * K + k, K - k) * part;
    }
  for (int r = 0; r < rows; r++)
    for (int j = 0; j < width; j++) {
      float total = 0;
      for (int lane = 0; lane < LANES; lane++) total += sum[r][j][lane];
      y[r * N + j] = total;
    }
}

/* y = x Eᵀ: E streams by once. */
ALWAYS transposed(const int rows, const float *x, const float *e, float *y, int64_t K, int64_t N) {
  int64_t n = 0;
  for (; n + ABREAST <= N; n += ABREAST) scores(rows, ABREAST, x, e + n * K, y + n, K, N);
  for (; n < N; n++) scores(rows, 1, x, e + n * K, y + n, K, N);
}

/* The rows in groups, each with a loop of its own that the compiler unrolls. */
#define CASE(kind, rows) case rows: kind(rows, x, w, y, K, N); break
#define GROUPS(kind)                                                              \
  for (int64_t left = M; left > 0; left -= GROUP, x += GROUP * K, y += GROUP * N) \
    switch (left < GROUP ? left : GROUP) {                                        \
      CASE(kind, 1); CASE(kind, 2); CASE(kind, 3);                                \
      CASE(kind, 4); CASE(kind, 5); CASE(kind, 6);                                \
    }

/* XLA asks a handler for its version before it calls it. */
static int told_version(XLA_FFI_CallFrame *frame) {
  XLA_FFI_Extension_Base *extension = frame->extension_start;
  if (extension == NULL || extension->type != XLA_FFI_Extension_Metadata) return 0;
  XLA_FFI_Metadata *metadata = ((XLA_FFI_Metadata_Extension *)extension)->metadata;
  metadata->api_version.major_version = XLA_FFI_API_MAJOR;
  metadata->api_version.minor_version = XLA_FFI_API_MINOR;
  metadata->traits = 0;
  return 1;
}

/* What the two handlers are given: x[M, K], the matrix, y[M, N]. */
#define OPERANDS                                                                        \
  const XLA_FFI_Buffer *given = frame->args.args[0], *made = frame->rets.rets[0];       \
  const int64_t M = given->dims[0], K = given->dims[1], N = made->dims[1];              \
  const float *x = given->data, *w = ((XLA_FFI_Buffer *)frame->args.args[1])->data;     \
  float *y = made->data

XLA_FFI_Error *narrow(XLA_FFI_CallFrame *frame) {
  if (told_version(frame)) return NULL;
  OPERANDS;
  GROUPS(product)
  return NULL;
}

XLA_FFI_Error *narrow_transposed(XLA_FFI_CallFrame *frame) {
  if (told_version(frame)) return NULL;
  OPERANDS;
  GROUPS(transposed)
  return NULL;
}
