// Vectors of L float32 lanes in GCC/Clang vector extensions: every operation the engine needs, for any machine.
// A machine with better instructions derives from Vector<L> and hides single functions (see sixteen.h).
#pragma once

#include <stdint.h>
#include <string.h>

#define SEPWISE_INLINE static inline __attribute__((always_inline))

namespace sepwise {
namespace {

template <int Lanes>
struct Vector {
  static constexpr int L = Lanes;
  typedef float F __attribute__((vector_size(4 * Lanes)));
  typedef float Anywhere __attribute__((vector_size(4 * Lanes), aligned(4), may_alias));
  typedef uint32_t U __attribute__((vector_size(4 * Lanes)));
  typedef uint32_t UAnywhere __attribute__((vector_size(4 * Lanes), aligned(2), may_alias));

  SEPWISE_INLINE F load(const void* p) { return *(const Anywhere*)p; }
  SEPWISE_INLINE void store(void* p, F v) { *(Anywhere*)p = v; }

  // The first `count` lanes, 0 <= count <= L; the others are zero, and their memory is not touched.
  SEPWISE_INLINE F load_first(const void* p, int64_t count) {
    float lanes[Lanes] __attribute__((aligned(64))) = {};
    memcpy(lanes, p, count * 4);
    return *(const Anywhere*)lanes;
  }
  SEPWISE_INLINE void store_first(void* p, F v, int64_t count) { memcpy(p, &v, count * 4); }

  SEPWISE_INLINE F fill(float value) {
    F v = {};
    return v + value;
  }
  // One 32-bit word to all lanes.
  SEPWISE_INLINE F broadcast(const void* word) {
    uint32_t bits;
    memcpy(&bits, word, 4);
    U v = {};
    return (F)(v | bits);
  }

  // sum + a * b
  SEPWISE_INLINE F add_product(F sum, F a, F b) { return sum + a * b; }

  // bound where v is below (above) it; v otherwise, so that NaN passes.
  SEPWISE_INLINE F at_least(F v, F bound) { return bound > v ? bound : v; }
  SEPWISE_INLINE F at_most(F v, F bound) { return bound < v ? bound : v; }

  // The larger one; NaN where one of them is.
  SEPWISE_INLINE F larger(F v, F other) { return v != v ? v : other <= v ? v : other; }

  // bfloat16 numbers 0, 2, 4, ... in `even` and 1, 3, 5, ... in `odd` of the 2 L numbers at p.
  SEPWISE_INLINE void load_pairs(const void* p, F& even, F& odd) { split_pairs(*(const UAnywhere*)p, even, odd); }
  SEPWISE_INLINE void load_pairs_first(const void* p, int64_t count, F& even, F& odd) {
    uint32_t words[Lanes] __attribute__((aligned(64))) = {};
    memcpy(words, p, count * 2);
    split_pairs(*(const UAnywhere*)words, even, odd);
  }
  SEPWISE_INLINE void split_pairs(U words, F& even, F& odd) {
    even = (F)(words << 16);
    odd = (F)(words & 0xffff0000u);
  }

  // To the nearest bfloat16, ties to even, as a float32 number.
  SEPWISE_INLINE F round_to_bf16(F v) {
    U bits = (U)v;
    U rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
    U quiet = bits | 0x00400000u;
    U is_number = (U)(v == v);
    return (F)(((rounded & is_number) | (quiet & ~is_number)) & 0xffff0000u);
  }

  // L bfloat16 numbers in their order; the first `count` of them, and zeros.
  SEPWISE_INLINE F load_bf16(const void* p) {
    uint16_t halves[Lanes];
    memcpy(halves, p, sizeof halves);
    uint32_t words[Lanes] __attribute__((aligned(64)));
    for (int i = 0; i < Lanes; i++) words[i] = (uint32_t)halves[i] << 16;
    return load(words);
  }
  SEPWISE_INLINE F load_bf16_first(const void* p, int64_t count) {
    uint16_t halves[Lanes] = {};
    memcpy(halves, p, count * 2);
    return load_bf16(halves);
  }

  // The sum of all lanes.
  SEPWISE_INLINE float total(F v) {
    float lanes[Lanes] __attribute__((aligned(64))), sum = 0;
    memcpy(lanes, &v, sizeof lanes);
    for (float lane : lanes) sum += lane;
    return sum;
  }

  // 2 L bfloat16 numbers: those of `low`, then those of `high`.
  SEPWISE_INLINE void store_bf16(void* p, F low, F high) {
    store_halves(p, low);
    store_halves((char*)p + 2 * Lanes, high);
  }
  SEPWISE_INLINE void store_bf16_first(void* p, F low, F high, int64_t count) {
    uint16_t halves[2 * Lanes] __attribute__((aligned(64)));
    store_bf16(halves, low, high);
    memcpy(p, halves, count * 2);
  }
  SEPWISE_INLINE void store_halves(void* p, F v) {
    const F rounded = round_to_bf16(v);
    uint16_t words[2 * Lanes], halves[Lanes];
    memcpy(words, &rounded, sizeof words);
    for (int i = 0; i < Lanes; i++) halves[i] = words[2 * i + 1];
    memcpy(p, halves, sizeof halves);
  }
};

}  // namespace
}  // namespace sepwise
