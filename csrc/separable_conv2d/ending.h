// How both steps end: the activation, on sums that are still in registers.
//
// relu and relu6 are a clamp, applied to every sum on its way out without a branch. The other activations go through
// memory, where activation.h computes them on all sums of a block at once; the clamp then changes nothing.
#pragma once

#include "activation.h"
#include "vector.h"

namespace sepwise {
namespace {

struct Ending {
  Activation activation;
  bool is_clamp;
  float low, high;
};

inline Ending ending_of(Activation kind) {
  const float infinity = __builtin_inff();
  const bool relu = kind == Activation::relu || kind == Activation::relu6;
  return {kind, relu || kind == Activation::none, relu ? 0.0f : -infinity,
          kind == Activation::relu6 ? 6.0f : infinity};
}

template <class V>
struct Bounds {
  typename V::F low, high;
  explicit Bounds(const Ending& ending) : low(V::fill(ending.low)), high(V::fill(ending.high)) {}
  [[gnu::always_inline]] typename V::F clamp(typename V::F sum) const { return V::at_most(V::at_least(sum, low), high); }
};

// What is no clamp. NEXT: the format in which the results go on.
template <class V, class NEXT, int ROWS, int VECTORS>
SEPWISE_INLINE void activate_sums(const Ending& ending, typename V::F (&sums)[ROWS][VECTORS]) {
  constexpr int L = V::L;
  if (__builtin_expect(ending.is_clamp, 1)) return;
  float values[ROWS * VECTORS * L] __attribute__((aligned(64)));
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 16
    for (int v = 0; v < VECTORS; v++) V::store(values + (r * VECTORS + v) * L, sums[r][v]);
  activate<L, NEXT::is_bf16>(ending.activation, values, ROWS * VECTORS * L);
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 16
    for (int v = 0; v < VECTORS; v++) sums[r][v] = V::load(values + (r * VECTORS + v) * L);
}

}  // namespace
}  // namespace sepwise
