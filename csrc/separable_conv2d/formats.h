// How numbers lie in memory on the way through the engine: what is read, what stays in the tile, what is written.
//
// Channels are taken in blocks of 2 L. `Input` fills two vectors from a pixel's block; with bfloat16 the first holds
// the even channels and the second the odd ones, because that costs one instruction each. So a block has its own order
// of channels, `Input::position`, which the packed weights of both steps follow; nothing is ever shuffled.
#pragma once

#include "vector.h"

namespace sepwise {
namespace {

template <class V>
struct FloatInput {
  static constexpr int bytes = 4;
  static constexpr bool keeps_order = true;
  // Where channel `c` of a block sits among its 2 L positions.
  static constexpr int64_t position(int64_t c) { return c; }
  template <int VECTORS, bool PARTIAL>
  SEPWISE_INLINE void load(const char* p, int64_t count, typename V::F* x) {
    if (!PARTIAL) {
      x[0] = V::load(p);
      if (VECTORS == 2) x[1] = V::load(p + 4 * V::L);
    } else if (VECTORS == 1) {
      x[0] = V::load_first(p, count);
    } else {
      x[0] = count >= V::L ? V::load(p) : V::load_first(p, count);
      x[1] = V::load_first(p + 4 * V::L, count > V::L ? count - V::L : 0);
    }
  }
  // L numbers, or the first `count` of them, in their order.
  SEPWISE_INLINE typename V::F load_in_order(const char* p) { return V::load(p); }
  SEPWISE_INLINE typename V::F load_in_order_first(const char* p, int64_t count) {
    return V::load_first(p, count < V::L ? count : V::L);
  }
  static float number(const void* weights, int64_t index) { return ((const float*)weights)[index]; }
};

template <class V>
struct Bf16Input {
  static constexpr int bytes = 2;
  static constexpr bool keeps_order = false;
  static constexpr int64_t position(int64_t c) { return (c % 2) * V::L + c / 2; }
  template <int VECTORS, bool PARTIAL>
  SEPWISE_INLINE void load(const char* p, int64_t count, typename V::F* x) {
    static_assert(VECTORS == 2);
    if (PARTIAL)
      V::load_pairs_first(p, count, x[0], x[1]);
    else
      V::load_pairs(p, x[0], x[1]);
  }
  SEPWISE_INLINE typename V::F load_in_order(const char* p) { return V::load_bf16(p); }
  SEPWISE_INLINE typename V::F load_in_order_first(const char* p, int64_t count) {
    return V::load_bf16_first(p, count < V::L ? count : V::L);
  }
  static float number(const void* weights, int64_t index) {
    uint32_t bits = (uint32_t)((const uint16_t*)weights)[index] << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
  }
};

// The tile between the steps. `bytes` for one channel; a row of it is read by the matrix step as 32-bit words.
template <class V>
struct FloatTile {
  static constexpr int bytes = 4;
  static constexpr bool is_bf16 = false;
  template <int VECTORS>
  SEPWISE_INLINE void store(char* p, const typename V::F* x) {
    V::store(p, x[0]);
    if (VECTORS == 2) V::store(p + 4 * V::L, x[1]);
  }
  // L words of 32 bits as `words` vectors of numbers, in any order; and back.
  static constexpr int words = 1;
  SEPWISE_INLINE void load_word(const char* p, typename V::F* x) { x[0] = V::load(p); }
  SEPWISE_INLINE void store_word(char* p, const typename V::F* x) { V::store(p, x[0]); }
  // L numbers in their order.
  SEPWISE_INLINE void store_in_order(char* p, typename V::F x) { V::store(p, x); }
};

// Numbers rounded to bfloat16, kept as float32: for machines without a bfloat16 product.
template <class V>
struct RoundedTile {
  static constexpr int bytes = 4;
  static constexpr bool is_bf16 = true;
  template <int VECTORS>
  SEPWISE_INLINE void store(char* p, const typename V::F* x) {
    V::store(p, V::round_to_bf16(x[0]));
    if (VECTORS == 2) V::store(p + 4 * V::L, V::round_to_bf16(x[1]));
  }
  static constexpr int words = 1;
  SEPWISE_INLINE void load_word(const char* p, typename V::F* x) { x[0] = V::load(p); }
  SEPWISE_INLINE void store_word(char* p, const typename V::F* x) { V::store(p, V::round_to_bf16(x[0])); }
  SEPWISE_INLINE void store_in_order(char* p, typename V::F x) { V::store(p, V::round_to_bf16(x)); }
};

template <class V>
struct FloatOutput {
  static constexpr int bytes = 4;
  static constexpr bool is_bf16 = false;
  // L numbers, and the first `count` of them.
  SEPWISE_INLINE typename V::F load(const char* p) { return V::load(p); }
  SEPWISE_INLINE typename V::F load_first(const char* p, int64_t count) { return V::load_first(p, count); }
  // 2 L numbers.
  SEPWISE_INLINE void store(char* p, typename V::F low, typename V::F high) {
    V::store(p, low);
    V::store(p + 4 * V::L, high);
  }
  SEPWISE_INLINE void store_first(char* p, typename V::F low, typename V::F high, int64_t count) {
    if (count <= V::L) {
      V::store_first(p, low, count);
    } else {
      V::store(p, low);
      V::store_first(p + 4 * V::L, high, count - V::L);
    }
  }
};

template <class V>
struct Bf16Output {
  static constexpr int bytes = 2;
  static constexpr bool is_bf16 = true;
  SEPWISE_INLINE typename V::F load(const char* p) { return V::load_bf16(p); }
  SEPWISE_INLINE typename V::F load_first(const char* p, int64_t count) { return V::load_bf16_first(p, count); }
  SEPWISE_INLINE void store(char* p, typename V::F low, typename V::F high) { V::store_bf16(p, low, high); }
  SEPWISE_INLINE void store_first(char* p, typename V::F low, typename V::F high, int64_t count) {
    V::store_bf16_first(p, low, high, count);
  }
};

}  // namespace
}  // namespace sepwise
