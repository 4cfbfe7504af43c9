/* Vectors of floats: a register of them, the sum of its lanes, a square of lanes turned over, e^x. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 16     /* floats of a vector */
#define REGISTERS 32 /* of the processor, for a vector each */
#else
#define LANES 8
#define REGISTERS 16
#endif

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), aligned(4)));
#define ALWAYS static inline __attribute__((always_inline)) void
#define WHOLE_LINES __attribute__((aligned(64))) /* of the cache; a vector across two of them takes two reads */

/* The next floats, at most a vector of them; where there are fewer, zeros follow. */
static inline vec load(const float *from, int64_t left) {
  vec some = {0};
  if (left >= LANES) return *(const vec *)from;
  memcpy(&some, from, sizeof(float) * left);
  return some;
}

static inline vec choose(ivec which, vec yes, vec no) {
  return (vec)((which & (ivec)yes) | (~which & (ivec)no));
}

static inline vec larger(vec a, vec b) { return choose(a > b, a, b); }

#ifdef __clang__
#define PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define PICK(a, b, ...) __builtin_shuffle(a, b, (ivec){__VA_ARGS__})
#endif

/* Two rows of lanes are cut into runs of `step`: LOW has the even runs of both, HIGH the odd ones. */
#if LANES == 16
#define LOW1(a, b) PICK(a, b, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30)
#define HIGH1(a, b) PICK(a, b, 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31)
#define LOW2(a, b) PICK(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)
#define HIGH2(a, b) PICK(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31)
#define LOW4(a, b) PICK(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27)
#define HIGH4(a, b) PICK(a, b, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31)
#define LOW8(a, b) PICK(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23)
#define HIGH8(a, b) PICK(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31)
#define EACH_STEP(of) of(1) of(2) of(4) of(8)
#else
#define LOW1(a, b) PICK(a, b, 0, 8, 2, 10, 4, 12, 6, 14)
#define HIGH1(a, b) PICK(a, b, 1, 9, 3, 11, 5, 13, 7, 15)
#define LOW2(a, b) PICK(a, b, 0, 1, 8, 9, 4, 5, 12, 13)
#define HIGH2(a, b) PICK(a, b, 2, 3, 10, 11, 6, 7, 14, 15)
#define LOW4(a, b) PICK(a, b, 0, 1, 2, 3, 8, 9, 10, 11)
#define HIGH4(a, b) PICK(a, b, 4, 5, 6, 7, 12, 13, 14, 15)
#define EACH_STEP(of) of(1) of(2) of(4)
#endif

/* v[i][j] and v[j][i] change places. */
#define TURN(step)                                            \
  for (int i = 0; i < LANES; i++)                             \
    if (!(i & step)) {                                        \
      const vec a = v[i], b = v[i + step];                    \
      v[i] = LOW##step(a, b), v[i + step] = HIGH##step(a, b); \
    }
ALWAYS transpose_square(vec v[LANES]) { EACH_STEP(TURN) }

/* The sum of all v[i]: neighbours first, then pairs, then fours, ... v is used up. */
#define ADD(step) \
  for (int i = 0; i < LANES; i += 2 * step) v[i] += v[i + step];
static inline vec sum_of(vec v[LANES]) {
  EACH_STEP(ADD)
  return v[0];
}

/* Lane i: the sum of the lanes of v[i], in the same order. v is used up. */
#define FOLD(step) \
  for (int i = 0; i < LANES; i += 2 * step) v[i] = LOW##step(v[i], v[i + step]) + HIGH##step(v[i], v[i + step]);
static inline vec lane_sums(vec v[LANES]) {
  EACH_STEP(FOLD)
  return v[0];
}

/* The largest lane of x, and the sum of its lanes, in every lane. */
static inline vec largest_lane(vec x) {
#define LARGER(step) x = larger(LOW##step(x, x), HIGH##step(x, x));
  EACH_STEP(LARGER)
  return x;
}

static inline vec sum_of_lanes(vec x) {
#define PLUS(step) x = LOW##step(x, x) + HIGH##step(x, x);
  EACH_STEP(PLUS)
  return x;
}

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
  return choose(~(x <= -87.25f), series * (vec)power, (vec){0}); /* of what is no number, none */
}
